"""Class counts of the pixels in each cell of a grid: (M8) for `labels_to_grid`."""

import torch
from torch import Tensor


def label_counts(
    labels: Tensor, rows: Tensor, columns: Tensor, num_classes: int, height: int, width: int,
    ignore_index: int,
) -> Tensor:  # fmt: skip
    """(B, C, height, width) float32 from labels (B, H, W) and each row's and column's cell.

    A value that is neither class nor ignore_index turns its cell into NaN (on CPU it was refused
    before).
    """
    images = len(labels)
    cell = rows[:, None] * width + columns
    valid = (labels >= 0) & (labels < num_classes) & (labels != ignore_index)
    wrong = ~valid & (labels != ignore_index)
    index = torch.where(valid, labels, 0).long() * (height * width) + cell
    counts = torch.zeros(
        images, num_classes * height * width, dtype=torch.float32, device=labels.device
    )
    mass = torch.where(wrong, torch.nan, valid.to(counts.dtype))
    counts.scatter_add_(1, index.flatten(1), mass.flatten(1))
    return counts.reshape(images, num_classes, height, width)
