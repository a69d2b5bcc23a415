"""Tiles so narrow that tiny tensors span several: the seams between tiles come under test."""

from contextlib import AbstractContextManager
from unittest import mock

import torch

from protocontrast.eager import tiles

NARROWEST = 64
"""Pixels of the narrowest tile."""


def small_tiles() -> AbstractContextManager[object]:
    """Every tile as narrow as it gets, `NARROWEST` pixels."""
    return mock.patch.object(tiles, "TILE_BYTES", 1)


def count_tiles(shape: tuple[int, int, int]) -> int:
    """How many tiles a (B, D, P) map has now."""
    return len(list(tiles.tiles(torch.empty(shape, device="meta"))))
