"""A step of `BiCL` as one node of autograd, where the kernels serve it whole.

Composed of its parts it would be a dozen launches of kernels and ten times as many by torch, each
of which takes longer to start than to run.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from protocontrast import kernels
from protocontrast.calls import Domain, StepCall
from protocontrast.ops.backend import choose, full_precision, is_plain, unwatched
from protocontrast.ops.gradient import first_order_only


@cache
def _kernels() -> Any:
    """The module, imported where it is wanted."""
    from protocontrast.kernels import bicl_step

    return bicl_step


class _Step(torch.autograd.Function):
    """Loss, to_source and to_target, which have a gradient; labels, coverage and class_share."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, target: Tensor, call: StepCall) -> tuple[Tensor, ...]:
        with full_precision(source):
            told, labels, pixelwise, ctx.classwise = _kernels().bicl_step(call)
        ctx.mark_non_differentiable(labels, told.coverage, told.class_share)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(source, target, *pixelwise)
        # What has a size of pixels is to be free after the backward pass.
        nothing = source.new_empty(0)
        ctx.call = call._replace(
            source=Domain(nothing, nothing, nothing), target=nothing, static=None, targets=None
        )
        return *told[:3], labels, *told[3:]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        wants, call, classwise = ctx.needs_input_grad[:2], ctx.call, ctx.classwise

        def gradients(*inputs: Any) -> tuple[Tensor | None, ...]:
            losses, (source, target), pixelwise = inputs[:3], inputs[3:5], inputs[5:]
            own = call._replace(source=call.source._replace(features=source), target=target)
            plain = all([one is None or is_plain(one) for one in losses])
            given = losses
            if not plain:
                given = None, *[torch.ones_like(classwise.factors.of_pixels)] * 2
            with full_precision(source):
                found = _kernels().bicl_step_backward(given, own, wants, pixelwise, classwise)
            if plain:
                return tuple(found)
            # Kernels take no batch of gradients, but each is a multiple of that of one number.
            loss, *each = (0 if one is None else one for one in losses)
            times = [w * loss + own for w, own in zip(call.weights, each, strict=True)][::-1]
            pairs = zip(found, times, strict=True)
            return tuple(None if part is None else part * number for part, number in pairs)

        found = first_order_only(gradients, *upstream[:3], *ctx.saved_tensors)
        return *found, None


def is_served(source: Tensor, target: Tensor, backend: str) -> bool:
    """Whether the kernels take a step of these features (B, D, P) whole."""
    if not (kernels.AVAILABLE and (source.is_cuda or kernels.INTERPRETED)):
        return False
    if not (unwatched(source) and is_plain(target)) or source.dtype != target.dtype:
        return False
    return choose(backend, "target_pass", source) == "triton"


def bicl_step(call: StepCall) -> tuple[Tensor, ...]:
    """Loss, to_source, to_target, fused labels (B, P), coverage and class_share (C,)."""
    return _Step.apply(call.source.features, call.target, call)
