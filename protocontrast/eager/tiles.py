"""Column blocks of a (B, D, P) map that stay in a core's caches."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TILE_BYTES = 1024 * 1024
"""float32 bytes of one tile: smaller ones pay for more calls, larger ones leave the caches."""

PAGE_BYTES = 4096
"""Addresses this far apart share a set of the first cache."""


class Tile(NamedTuple):
    """Where a tile lies: image index and half-open pixel range."""

    image: int
    start: int
    stop: int

    def of(self, pixels: Tensor) -> Tensor:
        """The tile's part of a (B, P) or (B, C, P) tensor, as a view (n,) or (C, n)."""
        return pixels.select(0, self.image).narrow(-1, self.start, self.stop - self.start)


def accumulation_dtype(features: Tensor) -> torch.dtype:
    """float64 for float64 features, else float32."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def tiles(features: Tensor, rows: int | None = None) -> Iterator[Tile]:
    """All tiles of a map (B, D, P), so wide that `rows` of one, by default D, fill `TILE_BYTES`.

    Widths depend on shapes alone, so sums have one order.
    """
    images, channels, pixels = features.shape
    width = max(64, TILE_BYTES // (4 * max(rows or channels, 1)) // 64 * 64)
    for image in range(images):
        for start in range(0, pixels, width):
            yield Tile(image, start, min(start + width, pixels))


def widened(features: Tensor, tile: Tile) -> Tensor:
    """The tile (D, n) in the accumulation dtype; a view where the features already have it."""
    return tile.of(features).to(accumulation_dtype(features))


def class_rows(features: Tensor, num_classes: int) -> Tensor:
    """Zeros (C, D) for products of (C, n) and tiles (n, D) to be added to, stored as is fastest.

    A product takes the order in which its result lies. Rows of pixels a multiple of 4 KiB apart,
    as in maps whose sides are powers of two, crowd into few lines of a cache, and with few channels
    and classes the order that starts from the channels is then the faster one.
    """
    channels = features.shape[1]
    shape = num_classes, channels
    dtype = accumulation_dtype(features)
    crowded = features.stride(1) * features.element_size() % PAGE_BYTES == 0
    beside = features.device.type == "cpu" and features.dtype == dtype and features.stride(2) == 1
    if beside and crowded and 64 <= channels <= 128 and 16 <= num_classes <= 32:
        return features.new_zeros(shape[::-1], dtype=dtype).t()
    return features.new_zeros(shape, dtype=dtype)


def without(block: Tensor, dropped: Tensor) -> Tensor:
    """A copy of a tile (D, n) whose `dropped` (n,) columns are 0, whatever they held."""
    return torch.where(dropped, torch.zeros((), dtype=block.dtype, device=block.device), block)


def holds_nonfinite(values: Tensor) -> bool:
    """Whether a tile must be cleaned before use: answered from its values on CPU, "yes" elsewhere.

    On other devices an answer would make the host wait, so the caller always takes the clean path
    there.
    """
    if values.device.type != "cpu":
        return True
    total = float(values.sum(dtype=accumulation_dtype(values)))
    return total != total or total in (float("inf"), float("-inf"))
