"""The operator that stretches volumes along their depth, and its gradient."""

from typing import Any

import torch
from torch import Tensor

from protocontrast.eager import depth as eager_depth
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.gradient import differentiable, once


@torch.library.custom_op("protocontrast::stretched_depth", mutates_args=())
def stretched_depth_op(logits: Tensor, depth: int, align_corners: bool) -> Tensor:
    """(B, C, z, h, w) as slices (B, depth, C, h, w), in the accumulation dtype."""
    return eager_depth.stretched_depth(logits, depth, align_corners)


@stretched_depth_op.register_fake
def _(logits: Tensor, depth: int, align_corners: bool) -> Tensor:
    images, channels, _, height, width = logits.shape
    shape = images, depth, channels, height, width
    return logits.new_empty(shape, dtype=accumulation_dtype(logits))


@torch.library.custom_op("protocontrast::stretched_depth_backward", mutates_args=())
def stretched_depth_backward_op(
    upstream: Tensor, depth: int, align_corners: bool, dtype: torch.dtype
) -> Tensor:
    """The gradient (B, C, depth, h, w) in the logits' dtype."""
    return eager_depth.stretched_depth_backward(upstream, depth, align_corners, dtype)


@stretched_depth_backward_op.register_fake
def _(upstream: Tensor, depth: int, align_corners: bool, dtype: torch.dtype) -> Tensor:
    images, _, channels, height, width = upstream.shape
    return upstream.new_empty((images, channels, depth, height, width), dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    logits, _, align_corners = inputs
    ctx.settings = logits.shape[2], align_corners, logits.dtype


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    return once(stretched_depth_backward_op, upstream, *ctx.settings), None, None


stretched_depth_op.register_autograd(
    _gradients, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _StretchedDepth(torch.autograd.Function):
    """Slices, differentiable in the logits, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return stretched_depth_op(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, upstream)


def stretched_depth(logits: Tensor, depth: int, align_corners: bool) -> Tensor:
    """Slices (B, depth, C, h, w) of logits (B, C, z, h, w): linear in depth, as they are within."""
    inputs = logits, depth, align_corners
    return differentiable(_StretchedDepth, stretched_depth_op, *inputs)
