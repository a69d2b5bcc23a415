"""The operator of cross-entropy of upsampled logits, and its gradient."""

from typing import Any

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import upsampled_cross_entropy as eager_upsampled
from protocontrast.eager.contrast import scale_in_place
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.backend import full_precision, is_plain, transforms_active
from protocontrast.ops.depth import stretched_depth
from protocontrast.ops.gradient import differentiable, kept, once, only_first_differentiable, steady
from protocontrast.ops.labels import checked_labels, refuse_on_host
from protocontrast.ops.reduction import reduced

FUNCTION = "upsampled_cross_entropy"
INPUTS = (
    "Tensor logits, Tensor labels, Tensor? class_weight, int ignore_index, bool align_corners, "
    "float label_smoothing"
)


@torch.library.custom_op(
    "protocontrast::upsampled_cross_entropy",
    mutates_args=(),
    schema=f"({INPUTS}, str backend) -> (Tensor, Tensor)",
)
def upsampled_cross_entropy_op(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, ignore_index: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Loss of every pixel (B, H, W) and the sum of their weights ()."""
    *settings, backend = rest
    refuse_on_host(FUNCTION, labels, logits.shape[1], ignore_index)
    inputs = logits, labels, class_weight, ignore_index, *settings
    with full_precision(logits):
        if backend == "triton":
            from protocontrast.kernels import upsampled_cross_entropy as triton_upsampled

            return triton_upsampled.upsampled_cross_entropy(*inputs)
        return eager_upsampled.upsampled_cross_entropy(*inputs)


@upsampled_cross_entropy_op.register_fake
def _(logits: Tensor, labels: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(logits)
    return logits.new_empty(labels.shape, dtype=dtype), logits.new_empty((), dtype=dtype)


@torch.library.custom_op(
    "protocontrast::upsampled_cross_entropy_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {INPUTS}, str backend) -> Tensor",
)
def upsampled_cross_entropy_backward_op(upstream: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    """Gradient of the logits, which are upsampled again."""
    *inputs, backend = rest
    with full_precision(logits):
        if backend == "triton":
            from protocontrast.kernels import upsampled_cross_entropy as triton_upsampled

            return triton_upsampled.upsampled_cross_entropy_backward(upstream, logits, *inputs)
        return eager_upsampled.upsampled_cross_entropy_backward(upstream, logits, *inputs)


@upsampled_cross_entropy_backward_op.register_fake
def _(upstream: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(logits)


@torch.library.custom_op(
    "protocontrast::upsampled_cross_entropy_with_gradient",
    mutates_args=(),
    schema=f"({INPUTS}, bool mean) -> (Tensor, Tensor)",
)
def upsampled_cross_entropy_with_gradient_op(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None, ignore_index: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    """The reduced loss and its gradient, in the accumulation dtype, from one sweep."""
    refuse_on_host(FUNCTION, labels, logits.shape[1], ignore_index)
    with full_precision(logits):
        return eager_upsampled.upsampled_cross_entropy_with_gradient(
            logits, labels, class_weight, ignore_index, *rest
        )


@upsampled_cross_entropy_with_gradient_op.register_fake
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(logits)
    return logits.new_empty((), dtype=dtype), torch.empty_like(logits, dtype=dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    logits, labels, class_weight, *settings = inputs
    ctx.save_for_backward(logits, labels, kept(class_weight))
    ctx.settings = settings


def _gradients(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    operator = upsampled_cross_entropy_backward_op
    return once(operator, upstream, *ctx.saved_tensors, *ctx.settings), *[None] * 6


upsampled_cross_entropy_op.register_autograd(
    _gradients, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _UpsampledCrossEntropy(torch.autograd.Function):
    """Loss per pixel, differentiable in the logits, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return upsampled_cross_entropy_op(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        only_first_differentiable(ctx, output)
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return (None,) * 7 if upstream is None else _gradients(ctx, upstream)


class _Reduced(torch.autograd.Function):
    """The reduced loss with its gradient written in the forward sweep: one upsampling for both.

    The first backward takes the gradient; a second one (retain_graph) computes it again.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        loss, ctx.gradient = upsampled_cross_entropy_with_gradient_op(*inputs)
        _save(ctx, inputs, None)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        ready, ctx.gradient = ctx.gradient, None

        def scaled(upstream: Tensor, logits: Tensor, *inputs: Any) -> Tensor:
            gradient = ready
            if gradient is None:
                _, gradient = upsampled_cross_entropy_with_gradient_op(logits, *inputs)
            if is_plain(upstream):
                gradient = scale_in_place(gradient, upstream)
            else:  # a batch of upstream gradients does not fit the buffer
                gradient = gradient * upstream
            return gradient.to(logits.dtype)

        return once(scaled, upstream, *ctx.saved_tensors, *ctx.settings), *[None] * 6


def _naive(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    align_corners: bool,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    labels = checked_labels(labels, logits.shape[1], ignore_index, FUNCTION)
    with full_precision(logits):
        loss, weight = naive.upsampled_cross_entropy(
            logits.to(accumulation_dtype(logits)),
            labels,
            kept(class_weight),
            ignore_index,
            align_corners,
            label_smoothing,
        )
    return loss, weight.sum()


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    align_corners: bool,
    label_smoothing: float,
    reduction: str,
    backend: str,
) -> Tensor:
    """The loss: like the labels for "none", else () with 0 where no pixel is valid."""
    if logits.dim() == 5 and backend != "naive":
        # Of each slice a map: the sums over all of them are those of the volumes.
        slices = stretched_depth(logits, labels.shape[1], align_corners).flatten(0, 1)
        maps = labels.flatten(0, 1), class_weight, ignore_index, align_corners
        loss = upsampled_cross_entropy(slices, *maps, label_smoothing, reduction, backend)
        return loss.reshape(labels.shape) if reduction == "none" else loss
    inputs = logits, labels, steady(class_weight), ignore_index, align_corners, label_smoothing
    if backend == "naive":
        loss, mass = _naive(*inputs)
    else:
        traced = torch.compiler.is_compiling() or transforms_active()
        wanted = logits.requires_grad and torch.is_grad_enabled()
        on_host = logits.device.type == "cpu" and backend == "eager"
        if reduction != "none" and wanted and on_host and not traced:
            return _Reduced.apply(*inputs, reduction == "mean")
        function, operator = _UpsampledCrossEntropy, upsampled_cross_entropy_op
        loss, mass = differentiable(function, operator, *inputs, backend)
    if label_smoothing and reduction == "mean":  # what is smoothed may count where nothing weighs
        loss = torch.where(mass == 0, 0, loss)
    return reduced(loss, mass, reduction)
