"""Label maps: `labels_to_grid` and `fuse_labels`."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from protocontrast.checks import (
    check_choice,
    check_count,
    check_ignore_index,
    check_integer,
    check_share,
    sentence,
)
from protocontrast.functional.pixels import comparable
from protocontrast.functional.precision import widest
from protocontrast.ops.grid import label_counts
from protocontrast.ops.labels import checked_labels

MODES = ("nearest", "majority", "counts")

Mode = Literal["nearest", "majority", "counts"]


def fuse_labels(base: Tensor, *others: Tensor, ignore_index: int = 255) -> Tensor:
    """Fill the unlabelled pixels of one map from the next: the first valid label wins.

    Args:
        base: labels that are never changed where valid.
        others: maps of the same shape, in order of trust.
        ignore_index: label of pixels without a class.

    Shape:
        All maps of one shape; result the same.

    Returns:
        int64.

    Raises:
        ValueError: shapes or devices differ.
        TypeError: a map is not of an integer dtype.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892 (hybrid pseudo labels); (M7) of docs/maths.md.

    Example:
        >>> import torch
        >>> fuse_labels(torch.tensor([0, 255, 255]), torch.tensor([1, 1, 255])).tolist()
        [0, 1, 255]
    """
    function = "fuse_labels"
    check_integer(function, "base", base)
    check_ignore_index(function, ignore_index)
    fused = base.to(torch.int64, copy=not others)
    for position, other in enumerate(others, start=1):
        argument = f"map {position} of others"
        check_integer(function, argument, other)
        if other.shape != base.shape:
            requirement = f"of shape {tuple(base.shape)} like base"
            raise ValueError(sentence(function, argument, requirement, tuple(other.shape)))
        if other.device != base.device:
            requirement = f"on {base.device} like base"
            raise ValueError(sentence(function, argument, requirement, other.device))
        fused = torch.where(fused != ignore_index, fused, other.long())
    return fused


def nearest_index(cells: int, positions: int, device: torch.device) -> Tensor:
    """The cell that torch's nearest interpolation reads for each position, (positions,)."""
    # Asked of torch itself, in float32: floor(i * cells / positions) differs from its map, and so
    # do the maps torch has for float64, one in forward and another in backward.
    ramp = torch.arange(cells, dtype=torch.float32, device=device)[None, None]
    return interpolate(ramp, size=positions, mode="nearest")[0, 0].long()


def _sizes(cell_of: Tensor, cells: int) -> Tensor:
    """How many positions each cell has; `torch.bincount` would make the host wait."""
    return (cell_of == torch.arange(cells, device=cell_of.device)[:, None]).sum(dim=1)


def pixels_per_cell(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """How many pixels of labels (B, H, W) each cell of a grid has, (h, w) float32, at least 1."""
    rows, columns = (
        _sizes(nearest_index(cells, positions, labels.device), cells)
        for cells, positions in zip(size, labels.shape[1:], strict=True)
    )
    return (rows[:, None] * columns).clamp_min(1).to(torch.float32)


def labels_to_grid(
    labels: Tensor,
    size: tuple[int, int],
    *,
    mode: Mode = "nearest",
    num_classes: int | None = None,
    min_share: float = 0.75,
    ignore_index: int = 255,
) -> Tensor:
    """Bring image-resolution labels to the features' grid.

    Args:
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        size: height and width of the grid.
        mode: "nearest" samples like torch's nearest downsampling; "majority" takes the most
            frequent class of a cell where its share of all the cell's pixels, ignored ones
            included, reaches `min_share` (ties to the lowest class); "counts" gives the number of
            pixels of each class per cell. Cells are those of torch's nearest upsampling
            of float32 maps, so contrast on counts equals contrast on nearest-upsampled logits at
            the labels' resolution.
        num_classes: C, needed by "majority" and "counts"; with it "nearest" checks what it samples.
        min_share: of "majority", in [0, 1].
        ignore_index: label of pixels without a class, outside 0..C-1.

    Shape:
        labels (B, H, W). Result (B, h, w) int64, or (B, C, h, w) float32 for "counts".

    Returns:
        Labels on the grid. A cell without any valid pixel is `ignore_index`, or 0 in every count.

    Raises:
        ValueError: not three dimensions, a size below 1, `num_classes` missing, or (CPU, with
            `num_classes`) a label is no class.
        TypeError: `labels` is not an integer tensor.

    Source:
        (M8) of docs/maths.md.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[[0, 0, 1, 255], [0, 1, 1, 255]]])
        >>> labels_to_grid(labels, (1, 2), mode="majority", num_classes=2).tolist()
        [[[0, 255]]]
        >>> labels_to_grid(labels, (1, 2), mode="counts", num_classes=2).tolist()
        [[[[3.0, 0.0]], [[1.0, 2.0]]]]
    """
    function = "labels_to_grid"
    check_integer(function, "labels", labels)
    if labels.dim() != 3:
        raise ValueError(sentence(function, "labels", "of shape (B, H, W)", tuple(labels.shape)))
    check_choice(function, "mode", mode, MODES)
    check_ignore_index(function, ignore_index)
    if not isinstance(size, (tuple, list, torch.Size)) or len(size) != 2:
        raise ValueError(sentence(function, "size", "to be (height, width)", repr(size)))
    height, width = size
    check_count(function, "height in size", height)
    check_count(function, "width in size", width)
    rows_in, columns_in = labels.shape[1:]
    if rows_in == 0 or columns_in == 0:
        requirement = "with at least one row and one column"
        raise ValueError(sentence(function, "labels", requirement, tuple(labels.shape)))
    if mode == "nearest":
        rows = nearest_index(rows_in, height, labels.device)
        columns = nearest_index(columns_in, width, labels.device)
        nearest = labels.long()[:, rows[:, None], columns]
        if num_classes is None:
            return nearest
        check_count(function, "num_classes", num_classes)
        check_ignore_index(function, ignore_index, num_classes)
        return checked_labels(nearest, num_classes, ignore_index, function)
    if num_classes is None:
        hint = "pass the number of classes; finding it in the labels would wait for the device."
        requirement = f'with mode="{mode}"'
        raise ValueError(sentence(function, "num_classes", requirement, "None", hint))
    check_count(function, "num_classes", num_classes)
    check_ignore_index(function, ignore_index, num_classes)
    check_share(function, "min_share", min_share)
    rows = nearest_index(height, rows_in, labels.device)
    columns = nearest_index(width, columns_in, labels.device)
    comparable_labels = comparable(labels, num_classes, ignore_index)
    counts = label_counts(
        comparable_labels, rows, columns, num_classes, height, width, ignore_index
    )
    if mode == "counts":
        return counts
    largest, majority = counts.max(dim=1)
    pixels = _sizes(rows, height)[:, None] * _sizes(columns, width)
    # A quotient in float64 is the number that was written: 7 of 100 pixels reach 0.07.
    kept = (largest > 0) & (widest(largest) / pixels >= min_share)
    return torch.where(kept, majority, ignore_index)
