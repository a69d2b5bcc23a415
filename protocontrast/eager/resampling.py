"""Bilinear upsampling of a few rows at a time, and its transpose: (M16).

A map (C, h, w) is stretched in width at its own height, as (rows, C, W), then blended in height, a
tile of output rows at a time. Volumes (B, C, z, h, w) are stretched in depth before: linear there,
then bilinear in each slice, is trilinear. What has no share in a blend is never read.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import StretchCall, accumulation_dtype

TILE_BYTES = 960 * 1024
"""float32 bytes of a tile (rows, C, W) of upsampled logits; a row is the least."""

CHUNK_BYTES = 1024 * 1024
"""float32 bytes of what is gathered from the rows that tiles share, at most twice as many."""


def reads(inputs: int, outputs: int, align_corners: bool) -> list[tuple[int, int, float]]:
    """The lower input, the upper one and its share, of each output.

    As `torch.nn.functional.interpolate` has it, in float64.
    """
    half = 0.0 if align_corners else 0.5
    step = (inputs - 1) / max(outputs - 1, 1) if align_corners else inputs / outputs
    found = []
    for position in range(outputs):
        source = max((position + half) * step - half, 0.0)
        lower = min(int(source), inputs - 1)
        upper = min(lower + 1, inputs - 1)
        found.append((lower, upper, source - lower if upper > lower else 0.0))
    return found


class Axis(NamedTuple):
    """Where each output position reads: `lower` with weight 1 - `share`, `upper` with `share`.

    `first` and `last` are the same two on the host.
    """

    lower: Tensor
    upper: Tensor
    share: Tensor
    first: list[int]
    last: list[int]


def axis(inputs: int, outputs: int, align_corners: bool, device: torch.device) -> Axis:
    """The same on a device, without a copy from the host."""
    half = 0.0 if align_corners else 0.5
    step = (inputs - 1) / max(outputs - 1, 1) if align_corners else inputs / outputs
    # Apple's GPUs have no float64.
    wide = torch.float32 if device.type == "mps" else torch.float64
    positions = torch.arange(outputs, dtype=wide, device=device)
    source = ((positions + half) * step - half).clamp_min_(0)
    lower = source.long().clamp_max_(inputs - 1)
    share = (source - lower).clamp_(0, 1)
    first, last, _ = zip(*reads(inputs, outputs, align_corners), strict=True)
    return Axis(lower, (lower + 1).clamp_max_(inputs - 1), share, [*first], [*last])


class Tile(NamedTuple):
    """Output rows that read the same two rows, these counted from the chunk's first."""

    outputs: slice
    lower: int
    upper: int


class Chunk(NamedTuple):
    """Input rows, and the tiles of the output rows that read them."""

    inputs: slice
    tiles: list[Tile]


class Upsampling:
    """From (C, h, w) to (C, H, W): where it reads, and the order of its tiles."""

    def __init__(
        self, logits: Tensor, size: tuple[int, int], align_corners: bool, finite: bool
    ) -> None:
        self.finite = finite
        _, self.channels, height, self.inputs = logits.shape
        self.width, self.dtype = size[1], accumulation_dtype(logits)
        self.rows = axis(height, size[0], align_corners, logits.device)
        self.columns = axis(self.inputs, size[1], align_corners, logits.device)
        self.chunks = list(self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        """All output rows, in order; lengths depend on shapes alone, so sums have one order."""
        first, last = self.rows.first, self.rows.last
        most = max(2, CHUNK_BYTES // (8 * self.channels * self.width))
        start = 0
        for row in range(1, len(first) + 1):
            if row == len(first) or last[row] - first[start] + 1 > most:
                inputs = slice(first[start], last[row - 1] + 1)
                yield Chunk(inputs, list(self._tiles(start, row)))
                start = row

    def _tiles(self, begin: int, end: int) -> Iterator[Tile]:
        """Tiles of the output rows begin..end-1."""
        first, last = self.rows.first, self.rows.last
        most = max(1, TILE_BYTES // (4 * self.channels * self.width))
        start = begin
        for row in range(begin + 1, end + 1):
            if row == end or row - start == most or first[row] != first[start]:
                yield Tile(
                    slice(start, row), first[start] - first[begin], last[start] - first[begin]
                )
                start = row

    def stretch(self, block: Tensor) -> Tensor:
        """(rows, C, w) as (rows, C, W)."""
        left, right = (block.index_select(-1, at) for at in self.columns[:2])
        return self._blended(left, right, self.columns.share.to(self.dtype))

    def shrink(self, wide: Tensor) -> Tensor:
        """The transpose of `stretch`: (rows, C, W) as (rows, C, w)."""
        share, (lower, upper, _, first, last) = self.columns.share.to(self.dtype), self.columns
        left = _summed(self._part(wide, 1 - share), lower, first, self.inputs)
        return left + _summed(self._part(wide, share), upper, last, self.inputs)

    def _part(self, values: Tensor, share: Tensor) -> Tensor:
        """Values times their share of a blend; what has none is not read, infinity times 0 is 0."""
        part = values * share
        return part if self.finite else torch.where(share == 0, 0, part)

    def _blended(self, lower: Tensor, upper: Tensor, share: Tensor) -> Tensor:
        """The upper values with their share, the lower with the rest."""
        if self.finite:
            return torch.lerp(lower, upper, share)
        return self._part(lower, 1 - share).add_(self._part(upper, share))

    def _share(self, tile: Tile) -> Tensor:
        return self.rows.share[tile.outputs, None, None].to(self.dtype)

    def blend(self, wide: Tensor, tile: Tile) -> Tensor:
        """The tile (n, C, W) from its chunk's stretched rows."""
        return self._blended(wide[tile.lower], wide[tile.upper], self._share(tile))

    def blend_back(self, slope: Tensor, total: Tensor, tile: Tile) -> None:
        """total += the transpose of `blend` of the slope (n, C, W) of a tile."""
        share = self._share(tile)
        total[tile.lower].add_(self._part(slope, 1 - share).sum(dim=0))
        total[tile.upper].add_(self._part(slope, share).sum(dim=0))


def _summed(values: Tensor, read: Tensor, read_on_host: list[int], inputs: int) -> Tensor:
    """Sum of the last dimension's entries that `read`, ascending, sends to each input.

    In a fixed order on every device, which an addition by index does not have.
    """
    cells = torch.arange(inputs, device=values.device)
    begin = torch.searchsorted(read, cells)
    count = torch.searchsorted(read, cells, right=True) - begin
    longest = max(Counter(read_on_host).values())
    steps = torch.arange(longest, device=values.device)
    index = torch.where(steps < count[:, None], begin[:, None] + steps, len(read_on_host))
    padded = torch.nn.functional.pad(values, (0, 1))
    return padded.index_select(-1, index.flatten()).unflatten(-1, index.shape).sum(dim=-1)


def stretched_depth(call: StretchCall) -> Tensor:
    """(B, C, z, h, w) as slices (B, depth, C, h, w), in the accumulation dtype."""
    logits, depth = call.logits, call.depth
    images, channels, slices, height, width = logits.shape
    shape = images, depth, channels, height, width
    out = logits.new_empty(shape, dtype=accumulation_dtype(logits))
    for place, (lower, upper, share) in enumerate(reads(slices, depth, call.align_corners)):
        into = out[:, place].copy_(logits[:, :, lower])
        if share > 0:
            into.mul_(1 - share).add_(logits[:, :, upper].to(out.dtype), alpha=share)
    return out


def stretched_depth_backward(grad_output: Tensor, call: StretchCall, wants: tuple[bool]) -> Tensor:
    """The gradient of the logits from that of the slices, summed in their order."""
    total = grad_output.new_zeros(call.logits.shape)
    slices = reads(call.logits.shape[2], call.depth, call.align_corners)
    for place, (lower, upper, share) in enumerate(slices):
        total[:, :, lower].add_(grad_output[:, place], alpha=1 - share)
        if share > 0:
            total[:, :, upper].add_(grad_output[:, place], alpha=share)
    return total.to(call.logits.dtype)
