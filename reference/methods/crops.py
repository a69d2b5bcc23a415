"""Two overlapping crops of a batch, seen by a network and put back on the whole images' grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE
from reference.methods.projector import pixel_rows
from reference.networks.output import Output
from reference.networks.toy import STRIDE

_MULTIPLE = 8
"""Pixels that the toy's network needs the sides of an image to be a multiple of."""


class View(NamedTuple):
    """What a network sees of a crop, for every cell of the whole images, P = B h w.

    Args:
        rows: (P, D), features; 0 outside the crop.
        sure: (P,), probability of the predicted class, without gradient; 0 outside the crop.
        classes: (P,), int64, the predicted class; 255 outside the crop.
    """

    rows: Tensor
    sure: Tensor
    classes: Tensor


def two_crops(size: torch.Size, generator: torch.Generator) -> list[tuple[slice, slice]]:
    """Draw two crops of at least three quarters of each side, so that they share half of it.

    Args:
        size: height and width of the images, pixels, multiples of 8.
        generator: of random numbers, on the CPU.

    Returns:
        Rows and columns of each, pixels, multiples of 8.

    Example:
        >>> crops = two_crops(torch.Size([32, 8]), torch.Generator().manual_seed(0))
        >>> [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in crops]
        [(24, 8), (24, 8)]
    """
    sides = []
    for length in size:
        part = -(-3 * length // (4 * _MULTIPLE)) * _MULTIPLE
        free = (length - part) // _MULTIPLE + 1
        starts = (_MULTIPLE * torch.randint(free, (2,), generator=generator)).tolist()
        sides.append([slice(start, start + part) for start in starts])
    return list(zip(*sides, strict=True))


def two_views(
    network: Callable[[Tensor], Output],
    head: Callable[[Tensor], Tensor],
    images: Tensor,
    generator: torch.Generator,
) -> tuple[View, View]:
    """Show two crops of images (B, 3, H, W) to a network, and its features to a head."""
    views = []
    for rows, columns in two_crops(images.shape[-2:], generator):
        seen = network(images[..., rows, columns])
        sure, classes = seen.logits.detach().softmax(dim=1).max(dim=1)
        ends = zip((columns, rows), (images.shape[-1], images.shape[-2]), strict=True)
        margins = [n // STRIDE for side, length in ends for n in (side.start, length - side.stop)]
        features = pixel_rows(F.pad(head(seen.features), margins))
        sure = F.pad(sure, margins).flatten()
        views.append(View(features, sure, F.pad(classes, margins, value=IGNORE).flatten()))
    return views[0], views[1]
