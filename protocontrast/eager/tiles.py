"""Column blocks of a (B, D, P) map that stay in a core's caches."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import accumulation_dtype

TILE_BYTES = 1024 * 1024
"""float32 bytes of one tile: smaller ones pay for more calls, larger ones leave the caches."""


class Tile(NamedTuple):
    """Where a tile lies: image index and half-open pixel range."""

    image: int
    start: int
    stop: int

    def of(self, pixels: Tensor) -> Tensor:
        """The tile's part of a (B, P) or (B, C, P) tensor, as a view (n,) or (C, n)."""
        return pixels.select(0, self.image).narrow(-1, self.start, self.stop - self.start)


def tiles(features: Tensor) -> Iterator[Tile]:
    """All tiles of a map (B, D, P), so wide that one fills `TILE_BYTES`.

    Widths depend on shapes alone, so sums have one order.
    """
    images, channels, pixels = features.shape
    width = max(64, TILE_BYTES // (4 * max(channels, 1)) // 64 * 64)
    for image in range(images):
        for start in range(0, pixels, width):
            yield Tile(image, start, min(start + width, pixels))


def widened(features: Tensor, tile: Tile) -> Tensor:
    """The tile (D, n) in the accumulation dtype; a view where the features already have it."""
    return tile.of(features).to(accumulation_dtype(features))


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
