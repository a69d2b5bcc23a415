"""Labels of a step at the grid of its features, checked."""

from typing import NamedTuple

from torch import Tensor

from protocontrast.checks import Sentence, check_labels
from protocontrast.functional import labels_to_grid
from protocontrast.functional.labels import checked_classes, pixels_per_cell
from protocontrast.functional.maps import check_label_map


class GridLabels(NamedTuple):
    """Labels (B, P) on the grid; of larger ones counts (B, C, P), and pixels (P,) of target cells.

    Without counts, None, pixels are pulled to the labels of the grid.
    """

    grid: Tensor
    counts: Tensor | None
    cell: Tensor | None

    @property
    def targets(self) -> Tensor:
        """What pixels are pulled to."""
        return self.grid if self.counts is None else self.counts


def at_grid(
    argument: str,
    labels: Tensor,
    features: Tensor,
    num_classes: int,
    ignore_index: int,
    validate: bool,
) -> GridLabels:
    """Labels of any size at the grid of their features; on a CPU every one is checked."""
    check_label_map(argument, labels, features, num_classes)
    size = tuple(features.shape[2:])
    try:
        if validate:
            check_labels(labels, num_classes, ignore_index=ignore_index)
        if labels.shape[1:] == features.shape[2:]:
            grid = checked_classes(labels, num_classes, ignore_index)
            return GridLabels(grid.flatten(1), None, None)
        # Counts read every pixel, so that a wrong one is met here; "nearest" would pass by most.
        counts = labels_to_grid(
            labels, size, mode="counts", num_classes=num_classes, ignore_index=ignore_index
        )
        grid = labels_to_grid(labels, size, ignore_index=ignore_index)
    except ValueError as error:
        if error.args and isinstance(error.args[0], Sentence):
            error.args = (error.args[0].naming(argument),)
        raise
    # A target cell without labels is filled with the transferred one.
    cell = pixels_per_cell(labels, size).flatten() if argument == "target_labels" else None
    return GridLabels(grid.flatten(1), counts.flatten(2), cell)
