"""What the gradients to features and prototypes share: slots of partial sums, and the launch."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import accumulation_dtype
from protocontrast.kernels.launch import (
    Launch,
    long_span,
    plan,
    run,
    span_of,
    tile_count,
    walkers,
)
from protocontrast.kernels.meta import Meta
from protocontrast.kernels.prototypes import Prototypes, finish, prepare_with_lengths
from protocontrast.kernels.tiles import map_of


@triton.jit
def add_to_slot(slot, part, offs_d, again, C: tl.constexpr, D: tl.constexpr):
    """Partial sums [BLOCK_D, BLOCK_C] added to a program's own slot (C, D), or set the first time.

    `again` is 0 the first time, so that nothing need be zero beforehand.
    """
    offs_c = tl.arange(0, part.shape[1])
    where_to = slot + offs_c[None, :] * D + offs_d[:, None]
    known = tl.where(again > 0, C, 0)
    before = tl.load(where_to, mask=(offs_c[None, :] < known) & (offs_d[:, None] < D), other=0.0)
    tl.store(where_to, before + part, mask=(offs_c[None, :] < C) & (offs_d[:, None] < D))


def span_to_send(features: Tensor, meta: Meta) -> int:
    """Pixels of which a program sums."""
    images, channels, pixels = features.shape
    span = span_of(images, channels, pixels, features.element_size(), meta.C)
    return long_span(span, images, pixels) if meta.PROGRAMS else span


def keeps_for_few(row: str, features: Tensor, given: Prototypes) -> bool:
    """Whether programs that keep prototypes would have less than four tiles of a small map each."""
    meta, _ = plan(row, features, len(given.rows))
    kept = meta.PROGRAMS > 0 and given.similarity != "euclidean"
    return kept and span_to_send(features, meta) < 4 * meta.BLOCK_P


class OfPixels(NamedTuple):
    """What a kernel takes beside features and prototypes; `soft`: a number per class and pixel."""

    arguments: tuple[Any, ...]
    ignore_index: int = 0
    soft: bool = False


def send_back(
    kernel: Any,
    row: str,
    features: Tensor,
    given: Prototypes,
    of_pixels: OfPixels,
    wants: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Start a kernel of the `row` of tile sizes; both gradients, empty where not wanted.

    It takes features, prepared prototypes, the features' gradient, partial sums of the
    prototypes', each of these None where not wanted, what `walkers` says if its programs keep
    prototypes and sum nothing, else None, then arguments of its own.
    """
    images, channels, pixels = features.shape
    prototypes = given.rows
    gradient = torch.empty_like(features) if wants[0] else features.new_empty(0)
    if images * pixels == 0:
        return gradient, torch.zeros_like(prototypes) if wants[1] else prototypes.new_empty(0)
    prepared = prepare_with_lengths(features, given)
    # Programs that keep prototypes have no use for distances; of a tile that products alone read,
    # triton has one more on its way.
    may_keep = given.similarity != "euclidean"
    alone = given.similarity == "dot" or (prepared.lengths is not None and not wants[0])
    meta, how = plan(
        row, features, prototypes.shape[0],
        crowded=may_keep and wants[1] and (alone or of_pixels.soft),
        SIMILARITY=given.similarity, IGNORE_INDEX=of_pixels.ignore_index,
    )  # fmt: skip
    if not may_keep:
        meta = meta._replace(PROGRAMS=0)
    if meta.PROGRAMS == 0 and prepared.logits is None and prepared.lengths is not None:
        # What is read in blocks is squared on its way.
        prepared = prepared._replace(lengths=None)
    span = meta.BLOCK_P
    walk, partial = None, None
    if wants[1]:
        span = span_to_send(features, meta)
        slots = images * tile_count(pixels, span)
        partial = features.new_empty(slots, meta.C, channels, dtype=accumulation_dtype(features))
    programs = images * tile_count(pixels, span)
    if meta.PROGRAMS and not wants[1]:
        walk = walkers(features, meta)
        programs = walk[1]
    meta = meta._replace(SPAN=span)
    written = map_of(gradient if wants[0] else None)
    arguments = map_of(features), prepared, written, partial, walk, *of_pixels.arguments
    run(Launch(kernel, programs, arguments, meta, how), features)
    if partial is None:
        return gradient, prototypes.new_empty(0)
    return gradient, finish(features, partial.sum(dim=0), given)
