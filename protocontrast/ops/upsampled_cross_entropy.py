"""The operators of cross-entropy of upsampled logits and of the depth of volumes."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import StretchCall, UpsampledCall, accumulation_dtype
from protocontrast.eager import resampling
from protocontrast.eager import upsampled_cross_entropy as eager_upsampled
from protocontrast.native import upsampled_cross_entropy as native_upsampled
from protocontrast.ops.gradient import private_copy
from protocontrast.ops.labels import checked_labels, class_labels
from protocontrast.ops.operator import Implementation, Operator, named
from protocontrast.ops.reduction import reduced

FUNCTION = "upsampled_cross_entropy"


def _empty(call: UpsampledCall) -> list[Tensor]:
    dtype = accumulation_dtype(call.logits)
    return [call.logits.new_empty(shape, dtype=dtype) for shape in (call.labels.shape, ())]


def _naive(call: UpsampledCall) -> tuple[Tensor, Tensor]:
    logits, classes = call.logits, call.logits.shape[1]
    read = call._replace(
        logits=logits.to(accumulation_dtype(logits)),
        labels=checked_labels(call.labels, classes, call.ignore_index, FUNCTION),
        class_weight=private_copy(call.class_weight),
    )
    loss, weight = naive.upsampled_cross_entropy(read)
    return loss, weight.sum()


def _triton() -> Implementation:
    from protocontrast.kernels import upsampled_cross_entropy as upsampled
    from protocontrast.kernels import upsampled_cross_entropy_backward as way_back

    return Implementation(
        upsampled.upsampled_cross_entropy, way_back.upsampled_cross_entropy_backward
    )


OPERATOR = Operator(
    "upsampled_cross_entropy", UpsampledCall, _empty, naive=_naive, triton=_triton,
    eager=named(eager_upsampled, "upsampled_cross_entropy"),
    native=named(native_upsampled, "upsampled_cross_entropy"),
    check=class_labels(FUNCTION, "logits", axis=1), results=2,
    differentiable=["logits"], private=["class_weight"], wide=True,
)  # fmt: skip


def _empty_slices(call: StretchCall) -> list[Tensor]:
    images, channels, _, height, width = call.logits.shape
    shape = images, call.depth, channels, height, width
    return [call.logits.new_empty(shape, dtype=accumulation_dtype(call.logits))]


DEPTH = Operator(
    "stretched_depth", StretchCall, _empty_slices,
    eager=named(resampling, "stretched_depth"),
    differentiable=["logits"], unread=["logits"],
)  # fmt: skip


def upsampled_cross_entropy(call: UpsampledCall, reduction: str, backend: str) -> Tensor:
    """The loss: like the labels for "none", else () with 0 where no pixel is valid."""
    labels = call.labels
    if labels.dim() == 4 and backend != "naive":
        # Of each slice a map: the sums over all of them are those of the volumes.
        slices = DEPTH(StretchCall(call.logits, labels.shape[1], call.align_corners), "eager")
        maps = call._replace(logits=slices.flatten(0, 1), labels=labels.flatten(0, 1))
        loss = upsampled_cross_entropy(maps, reduction, backend)
        return loss.reshape(labels.shape) if reduction == "none" else loss
    smoothed = call.label_smoothing and reduction == "mean"
    if not smoothed or OPERATOR.in_one_sweep(call, reduction, backend):
        return OPERATOR.loss(call, reduction, backend)
    loss, mass = OPERATOR(call, backend)
    # What is smoothed may count where nothing weighs.
    return reduced(torch.where(mass == 0, 0, loss), mass, reduction)
