"""Class counts of the pixels in each cell of a grid: (M8) for `labels_to_grid`."""

import torch
from torch import Tensor

from protocontrast.calls import LabelCountsCall


def label_counts(call: LabelCountsCall) -> Tensor:
    """(B, C, height, width) float32 from labels (B, H, W) and each row's and column's cell.

    A value that is neither class nor ignore_index turns its cell into NaN (on CPU it was refused
    before).
    """
    labels, num_classes, ignore_index = call.labels, call.num_classes, call.ignore_index
    images, cells = len(labels), call.height * call.width
    cell = call.rows[:, None] * call.width + call.columns
    valid = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
    wrong = ~valid & (labels != ignore_index)
    index = torch.where(valid, labels, 0).long() * cells + cell
    counts = torch.zeros(images, num_classes * cells, dtype=torch.float32, device=labels.device)
    mass = torch.where(wrong, torch.nan, valid.to(counts.dtype))
    counts.scatter_add_(1, index.flatten(1), mass.flatten(1))
    return counts.reshape(images, num_classes, call.height, call.width)
