"""Labels counted on the cells of the features' grid (M8)."""

import torch
from torch import Tensor


def label_counts(labels: Tensor, num_classes: int, height: int, width: int) -> Tensor:
    """(M8) pixels of each class in each cell of torch's nearest upsampling map, (B, C, h, w)."""
    cells = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    cell_of = torch.nn.functional.interpolate(cells, size=labels.shape[1:], mode="nearest")[0, 0]
    counts = torch.zeros(len(labels), num_classes, height, width, dtype=torch.float32)
    for b in range(len(labels)):
        for c in range(num_classes):
            for cell in cell_of[labels[b] == c].long().tolist():
                counts[b, c, cell // width, cell % width] += 1
    return counts
