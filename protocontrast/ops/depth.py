"""The operator that stretches volumes along their depth, and its gradient."""

from torch import Tensor

from protocontrast.calls import StretchCall
from protocontrast.eager import depth as eager_depth
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.operator import Implementation, Operator


def _empty(call: StretchCall) -> list[Tensor]:
    images, channels, _, height, width = call.logits.shape
    shape = images, call.depth, channels, height, width
    return [call.logits.new_empty(shape, dtype=accumulation_dtype(call.logits))]


OPERATOR = Operator(
    "stretched_depth", StretchCall, _empty,
    eager=Implementation(eager_depth.stretched_depth, eager_depth.stretched_depth_backward),
    differentiable=["logits"], unread=["logits"],
)  # fmt: skip


def stretched_depth(call: StretchCall) -> Tensor:
    """Slices (B, depth, C, h, w) of logits (B, C, z, h, w): linear in depth, as they are within."""
    return OPERATOR(call, "eager")
