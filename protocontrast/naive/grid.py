"""Labels counted on the cells of the features' grid (M8)."""

import math

import torch
from torch import Tensor


def label_counts(labels: Tensor, num_classes: int, *size: int) -> Tensor:
    """(M8) pixels of each class in each cell of torch's nearest upsampling map, (B, C, *size)."""
    cells = torch.arange(math.prod(size), dtype=torch.float64).reshape(1, 1, *size)
    cell_of = torch.nn.functional.interpolate(cells, size=labels.shape[1:], mode="nearest")[0, 0]
    counts = torch.zeros(len(labels), num_classes, math.prod(size), dtype=torch.float32)
    for b in range(len(labels)):
        for c in range(num_classes):
            for cell in cell_of[labels[b] == c].long().tolist():
                counts[b, c, cell] += 1
    return counts.reshape(len(labels), num_classes, *size)
