"""The label-count operator; labels have no gradient."""

import torch
from torch import Tensor

from protocontrast.eager import grid as eager_grid
from protocontrast.ops.labels import refuse_on_host


@torch.library.custom_op("protocontrast::label_counts", mutates_args=())
def label_counts(
    labels: Tensor,
    rows: Tensor,
    columns: Tensor,
    num_classes: int,
    height: int,
    width: int,
    ignore_index: int,
) -> Tensor:
    """(B, C, height, width) float32: pixels of each class in each cell."""
    refuse_on_host("labels_to_grid", labels, num_classes, ignore_index)
    return eager_grid.label_counts(labels, rows, columns, num_classes, height, width, ignore_index)


@label_counts.register_fake
def _(
    labels: Tensor,
    rows: Tensor,
    columns: Tensor,
    num_classes: int,
    height: int,
    width: int,
    ignore_index: int,
) -> Tensor:
    return labels.new_empty((labels.shape[0], num_classes, height, width), dtype=torch.float32)
