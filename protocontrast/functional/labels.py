"""Label maps: `labels_to_grid` and `fuse_labels`."""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from protocontrast.calls import LabelCountsCall
from protocontrast.checks import (
    check_choice,
    check_count,
    check_ignore_index,
    check_integer,
    check_share,
    public,
    sentence,
    shown,
)
from protocontrast.functional import hints
from protocontrast.functional.maps import check_classes
from protocontrast.functional.pixels import comparable
from protocontrast.functional.precision import widest
from protocontrast.ops.labels import known_labels, label_counts, labels_are_known

__all__ = [
    "checked_classes",
    "fuse_labels",
    "labels_are_known",
    "labels_to_grid",
    "pixels_per_cell",
]

MODES = ("nearest", "majority", "counts")

Mode = Literal["nearest", "majority", "counts"]


@public
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
    check_integer("base", base)
    check_ignore_index(ignore_index)
    fused = base.to(torch.int64, copy=not others)
    for position, other in enumerate(others, start=1):
        argument = f"map {position} of others"
        check_integer(argument, other)
        if other.shape != base.shape:
            wanted, got = tuple(base.shape), tuple(other.shape)
            hint = hints.one_per_pixel(f"others[{position - 1}]", got, wanted)
            requirement = f"of shape {wanted} like base"
            raise ValueError(sentence(argument, requirement, got, hint))
        if other.device != base.device:
            requirement = f"on {base.device} like base"
            raise ValueError(sentence(argument, requirement, other.device))
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


def pixels_per_cell(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """How many pixels of labels (B, *sides) each cell of a grid has, float32, at least 1."""
    sides = zip(size, labels.shape[1:], strict=True)
    cells = [nearest_index(*pair, labels.device) for pair in sides]
    return _cell_sizes(cells, size).clamp_min(1).to(torch.float32)


def _cell_sizes(cells: list[Tensor], size: tuple[int, ...]) -> Tensor:
    """How many pixels each cell of a grid has, from the cells along each axis."""
    pixels = _sizes(cells[0], size[0])
    for cell_of, number in zip(cells[1:], size[1:], strict=True):
        pixels = pixels[..., None] * _sizes(cell_of, number)
    return pixels


def _crossed(reads: list[Tensor]) -> list[Tensor]:
    """Positions along each axis, each of its own dimension, so that as an index they cross."""
    last = len(reads) - 1
    return [read.reshape(-1, *(1,) * (last - axis)) for axis, read in enumerate(reads)]


def _read_size(labels: Tensor, size: tuple[int, ...], num_classes: int | None) -> tuple[int, ...]:
    """The size of the grid, one number for each axis of the labels, none of them empty."""
    shape = tuple(labels.shape)
    names = ("depth", "height", "width")[-(len(shape) - 1) :]
    if not isinstance(size, (tuple, list, torch.Size)) or len(size) != len(names):
        requirement = f"to be ({', '.join(names)})"
        if len(names) == 3:
            requirement += f" for labels {shape}"
        hint = ""
        if isinstance(size, (tuple, list, torch.Size)) and isinstance(num_classes, int | None):
            hint = hints.label_map("labels", shape, len(size), num_classes)
        raise ValueError(sentence("size", requirement, shown(size), hint))
    for name, value in zip(names, size, strict=True):
        check_count(f"{name} in size", value)
    if 0 in shape[1:]:
        requirement = "with at least one row and one column"
        if len(names) == 3:
            requirement = "with at least one slice, row and column"
        raise ValueError(sentence("labels", requirement, shape))
    return tuple(size)


def checked_classes(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Labels, int64, each a class or `ignore_index`: on a CPU another value raises."""
    return known_labels(labels.long(), num_classes, ignore_index, "labels_to_grid")


@public
def labels_to_grid(
    labels: Tensor,
    size: tuple[int, ...],
    *,
    mode: Mode = "nearest",
    num_classes: int | None = None,
    min_share: float = 0.75,
    ignore_index: int = 255,
) -> Tensor:
    """Bring image-resolution labels to the features' grid.

    Args:
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        size: height and width of the grid, or depth, height and width for volumes.
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
        labels (B, H, W) or (B, Z, H, W). Result (B, h, w) or (B, z, h, w) int64; for "counts"
        (B, C, h, w) or (B, C, z, h, w) float32.

    Returns:
        Labels on the grid. A cell without any valid pixel is `ignore_index`, or 0 in every count.

    Raises:
        ValueError: not three or four dimensions, a size below 1 or of another number of axes,
            `num_classes` missing, or (CPU, with `num_classes`) a label is no class.
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
    axes = len(size) if isinstance(size, (tuple, list, torch.Size)) else 2
    known = num_classes if isinstance(num_classes, int) else None
    check_classes("labels", labels, axes, known)
    if labels.dim() not in (3, 4):
        requirement = "of shape (B, Z, H, W) or (B, H, W)"
        hint = hints.label_map("labels", tuple(labels.shape), 3)
        raise ValueError(sentence("labels", requirement, tuple(labels.shape), hint))
    check_choice("mode", mode, MODES)
    check_ignore_index(ignore_index)
    grid = _read_size(labels, size, num_classes)
    sides = tuple(labels.shape[1:])
    if mode == "nearest":
        reads = [nearest_index(*pair, labels.device) for pair in zip(sides, grid, strict=True)]
        index: list[Any] = [slice(None), *_crossed(reads)]
        nearest = labels.long()[tuple(index)]
        if num_classes is None:
            return nearest
        check_count("num_classes", num_classes)
        check_ignore_index(ignore_index, num_classes)
        return checked_classes(nearest, num_classes, ignore_index)
    if num_classes is None:
        hint = "pass the number of classes; finding it in the labels would wait for the device."
        requirement = f'with mode="{mode}"'
        raise ValueError(sentence("num_classes", requirement, "None", hint))
    check_count("num_classes", num_classes)
    check_ignore_index(ignore_index, num_classes)
    check_share("min_share", min_share)
    cells = [nearest_index(*pair, labels.device) for pair in zip(grid, sides, strict=True)]
    # A volume is a map whose rows are those of all its slices.
    rows, height = cells[-2], math.prod(grid[:-1])
    if len(grid) == 3:
        rows = (cells[0][:, None] * grid[1] + rows).flatten()
    flat = comparable(labels, num_classes, ignore_index).flatten(1, -2)
    call = LabelCountsCall(flat, rows, cells[-1], num_classes, height, grid[-1], ignore_index)
    counts = label_counts(call).reshape(labels.shape[0], num_classes, *grid)
    if mode == "counts":
        return counts
    largest, majority = counts.max(dim=1)
    pixels = _cell_sizes(cells, grid)
    # A quotient in float64 is the number that was written: 7 of 100 pixels reach 0.07.
    kept = (largest > 0) & (widest(largest) / pixels >= float(min_share))
    return torch.where(kept, majority, ignore_index)
