"""Labels of a step at the grid of its features, checked."""

from torch import Tensor

from protocontrast.checks import check_labels
from protocontrast.functional import labels_to_grid
from protocontrast.functional.maps import check_label_map


def at_grid(
    argument: str,
    labels: Tensor,
    features: Tensor,
    num_classes: int,
    ignore_index: int,
    validate: bool,
) -> Tensor:
    """Labels (B, H, W) or (B, Z, H, W) of any size, (B, h, w) or (B, z, h, w)."""
    check_label_map("BiCL", argument, labels, features, num_classes)
    if validate:
        check_labels(labels, num_classes, ignore_index=ignore_index)
    size = tuple(features.shape[2:])
    return labels_to_grid(labels, size, num_classes=num_classes, ignore_index=ignore_index)


def grid_or_counts(labels: Tensor, grid: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """What pixels are pulled to: the labels of the grid, or counts of larger ones."""
    if labels.shape == grid.shape:
        return grid
    size = tuple(grid.shape[1:])
    return labels_to_grid(
        labels, size, mode="counts", num_classes=num_classes, ignore_index=ignore_index
    )
