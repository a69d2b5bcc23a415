"""Bilinear upsampling of a few rows at a time, and its transpose: (M16).

A map (C, h, w) is stretched in width at its own height, as (rows, C, W), then blended in height, a
tile of output rows at a time. Finite numbers take both steps as small matrix products. There a
weight of 0 stands for "not read", which holds for no number that is not finite; those are gathered.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

TILE_BYTES = 960 * 1024
"""float32 bytes of a tile (rows, C, W) of upsampled logits; a row is the least."""

CHUNK_BYTES = 1024 * 1024
"""float32 bytes of the stretched rows (rows, C, W) that tiles share; two rows are the least."""

COLUMNS = 128
"""Output columns per product: more of them read more inputs, most of them with weight 0."""

ROWS = 16
"""Most output rows of a tile, for the same reason."""

LEAST_ROWS = 8
"""Of a product in the gradient: on some processors threads share out the sums of fewer."""


class Axis(NamedTuple):
    """Where each output position reads: `lower` with weight 1 - `share`, `upper` with `share`.

    `first` and `last` are the same two on the host.
    """

    lower: Tensor
    upper: Tensor
    share: Tensor
    first: list[int]
    last: list[int]

    def matrix(self, start: int, stop: int) -> Tensor:
        """Weights (outputs, inputs) of the outputs start..stop-1, from the first input they read.

        In float64.
        """
        begin, end = self.first[start], self.last[stop - 1] + 1
        share = self.share[start:stop, None]
        inputs = torch.arange(begin, end, device=share.device)
        lower = self.lower[start:stop, None] == inputs
        upper = self.upper[start:stop, None] == inputs
        return lower * (1 - share) + upper * share


def axis(inputs: int, outputs: int, align_corners: bool, device: torch.device) -> Axis:
    """The reads of `torch.nn.functional.interpolate`, in float64."""
    half = 0.0 if align_corners else 0.5
    step = (inputs - 1) / max(outputs - 1, 1) if align_corners else inputs / outputs
    top = inputs - 1
    first = [min(int(max((i + half) * step - half, 0.0)), top) for i in range(outputs)]
    # Apple's GPUs have no float64.
    wide = torch.float32 if device.type == "mps" else torch.float64
    positions = torch.arange(outputs, dtype=wide, device=device)
    source = ((positions + half) * step - half).clamp_min_(0)
    lower = source.long().clamp_max_(top)
    share = (source - lower).clamp_(0, 1)
    last = [min(i + 1, top) for i in first]
    return Axis(lower, (lower + 1).clamp_max_(top), share, first, last)


class Tile(NamedTuple):
    """Output rows of a chunk, the stretched rows they read, and with which weights.

    Counted from the chunk's first; `weights` is (outputs, inputs), or `share` (outputs, 1, 1) of
    the last input where rows are gathered.
    """

    outputs: slice
    inputs: slice
    weights: Tensor


class Chunk(NamedTuple):
    """Output rows, and the input rows they read."""

    outputs: slice
    inputs: slice
    tiles: list[Tile]


class Upsampling:
    """From (C, h, w) to (C, H, W): where it reads, its products, and the order of its tiles."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        size: tuple[int, int],
        align_corners: bool,
        dtype: torch.dtype,
        device: torch.device,
        gathers: bool,
    ) -> None:
        self.channels, height, width = shape
        self.width = size[1]
        self.dtype = dtype
        self.gathers = gathers
        self.rows = axis(height, size[0], align_corners, device)
        self.columns = axis(width, size[1], align_corners, device)
        self.products: list[tuple[slice, slice, Tensor]] = []
        if not gathers:
            for start in range(0, self.width, COLUMNS):
                stop = min(start + COLUMNS, self.width)
                read = slice(self.columns.first[start], self.columns.last[stop - 1] + 1)
                weights = self.columns.matrix(start, stop).to(dtype)
                self.products.append((slice(start, stop), read, weights))
        self.chunks = list(self._chunks())
        if not gathers:
            deepest = max(c.inputs.stop - c.inputs.start for c in self.chunks)
            most = max(len(tile.weights) for c in self.chunks for tile in c.tiles)
            inner = self.channels, self.width
            self._wide = torch.empty(deepest, *inner, dtype=dtype, device=device)
            self._total = torch.empty_like(self._wide)
            self._tile = torch.empty(most, *inner, dtype=dtype, device=device)

    def _chunks(self) -> Iterator[Chunk]:
        """All output rows, in order; lengths depend on shapes alone, so sums have one order."""
        first, last = self.rows.first, self.rows.last
        most = max(2, CHUNK_BYTES // (4 * self.channels * self.width))
        start = 0
        for row in range(1, len(first) + 1):
            if row == len(first) or last[row] - first[start] + 1 > most:
                inputs = slice(first[start], last[row - 1] + 1)
                yield Chunk(slice(start, row), inputs, list(self._tiles(start, row)))
                start = row

    def _tiles(self, begin: int, end: int) -> Iterator[Tile]:
        """Tiles of the output rows begin..end-1; those that gather read one pair of rows."""
        first, last = self.rows.first, self.rows.last
        most = max(1, min(ROWS, TILE_BYTES // (4 * self.channels * self.width)))
        start = begin
        for row in range(begin + 1, end + 1):
            ends = row == end or row - start == most
            if not (ends or (self.gathers and first[row] != first[start])):
                continue
            inputs = slice(first[start] - first[begin], last[row - 1] + 1 - first[begin])
            share = self.rows.share[start:row, None, None]
            weights = share if self.gathers else self.rows.matrix(start, row)
            yield Tile(slice(start - begin, row - begin), inputs, weights.to(self.dtype))
            start = row

    def stretch(self, block: Tensor) -> Tensor:
        """(rows, C, w) as (rows, C, W); the next call may overwrite it."""
        if self.gathers:
            share = self.columns.share.to(self.dtype)
            left, right = block[..., self.columns.lower], block[..., self.columns.upper]
            return _blended(left, right, share)
        wide = self._wide[: len(block)]
        source, target = block.flatten(0, 1), wide.flatten(0, 1)
        for outputs, inputs, weights in self.products:
            torch.mm(source[:, inputs], weights.t(), out=target[:, outputs])
        return wide

    def shrink(self, wide: Tensor, width: int) -> Tensor:
        """The transpose of `stretch`: (rows, C, W) as (rows, C, w)."""
        if self.gathers:
            share = self.columns.share.to(self.dtype)
            left = _summed(_part(wide, 1 - share), self.columns.lower, self.columns.first, width)
            return left + _summed(_part(wide, share), self.columns.upper, self.columns.last, width)
        block = wide.new_zeros(len(wide), self.channels, width)
        source, target = wide.flatten(0, 1), block.flatten(0, 1)
        for outputs, inputs, weights in self.products:
            target[:, inputs].addmm_(source[:, outputs], weights)
        return block

    def nothing(self, wide: Tensor) -> Tensor:
        """Zeros for `blend_back` to add to, of the size of stretched rows."""
        return torch.zeros_like(wide) if self.gathers else self._total[: len(wide)].zero_()

    def blend(self, wide: Tensor, tile: Tile) -> Tensor:
        """The tile (n, C, W) from its chunk's stretched rows; the next call may overwrite it."""
        rows = wide[tile.inputs]
        if self.gathers:
            return _blended(rows[0], rows[-1], tile.weights)
        blended = self._tile[: len(tile.weights)]
        torch.mm(tile.weights, rows.flatten(1), out=blended.flatten(1))
        return blended

    def blend_back(self, slope: Tensor, total: Tensor, tile: Tile) -> None:
        """total += the transpose of `blend` of the slope (n, C, W) of a tile."""
        if self.gathers:
            rows = total[tile.inputs]
            rows[0].add_(_part(slope, 1 - tile.weights).sum(dim=0))
            rows[-1].add_(_part(slope, tile.weights).sum(dim=0))
            return
        start = max(0, min(tile.inputs.start, len(total) - LEAST_ROWS))
        rows = total[start : max(tile.inputs.stop, start + LEAST_ROWS)]
        weights = tile.weights.new_zeros(len(rows), len(tile.weights))
        weights[tile.inputs.start - start : tile.inputs.stop - start] = tile.weights.t()
        rows.flatten(1).addmm_(weights, slope.flatten(1))


def _part(values: Tensor, share: Tensor) -> Tensor:
    """Values times their share of a blend; what has no share is not read, infinity times 0 is 0."""
    return torch.where(share == 0, 0, values * share)


def _blended(lower: Tensor, upper: Tensor, share: Tensor) -> Tensor:
    """The upper values with their share, the lower with the rest."""
    return _part(lower, 1 - share).add_(_part(upper, share))


def _summed(values: Tensor, read: Tensor, read_on_host: list[int], inputs: int) -> Tensor:
    """Sum of the last dimension's entries that `read`, ascending, sends to each input.

    In a fixed order on every device, which an addition by index does not have.
    """
    cells = torch.arange(inputs, device=values.device)
    begin = torch.searchsorted(read, cells)
    count = torch.searchsorted(read, cells, right=True) - begin
    steps = torch.arange(_longest_run(read_on_host), device=values.device)
    index = (begin[:, None] + steps).clamp_max_(len(read_on_host) - 1)
    return torch.where(steps < count[:, None], values[..., index], 0).sum(dim=-1)


def _longest_run(ascending: list[int]) -> int:
    longest = start = 0
    for stop in range(1, len(ascending) + 1):
        if stop == len(ascending) or ascending[stop] != ascending[start]:
            longest, start = max(longest, stop - start), stop
    return longest
