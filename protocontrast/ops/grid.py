"""The label-count operator; labels have no gradient."""

import torch
from torch import Tensor

from protocontrast.calls import LabelCountsCall
from protocontrast.eager import grid as eager_grid
from protocontrast.ops.labels import refuse_on_host
from protocontrast.ops.operator import Implementation, Operator


def _check(call: LabelCountsCall) -> None:
    refuse_on_host("labels_to_grid", call.labels, call.num_classes, call.ignore_index)


def _empty(call: LabelCountsCall) -> list[Tensor]:
    shape = call.labels.shape[0], call.num_classes, call.height, call.width
    return [call.labels.new_empty(shape, dtype=torch.float32)]


OPERATOR = Operator(
    "label_counts", LabelCountsCall, _empty,
    eager=Implementation(eager_grid.label_counts), check=_check,
)  # fmt: skip


def label_counts(call: LabelCountsCall) -> Tensor:
    """(B, C, height, width) float32: pixels of each class in each cell."""
    return OPERATOR(call, "eager")
