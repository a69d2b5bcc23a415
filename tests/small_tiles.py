"""Tiles so narrow that tiny tensors span several: the seams between tiles come under test."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from protocontrast.eager import tiles

NARROWEST = 64
"""Pixels of the narrowest tile."""


@contextmanager
def small_tiles() -> Iterator[None]:
    """Every tile as narrow as it gets, `NARROWEST` pixels."""
    before = tiles.TILE_BYTES
    tiles.TILE_BYTES = 1
    try:
        yield
    finally:
        tiles.TILE_BYTES = before


def count_tiles(shape: tuple[int, int, int]) -> int:
    """How many tiles a (B, D, P) map has now."""
    return len(list(tiles.tiles(torch.empty(shape, device="meta"))))
