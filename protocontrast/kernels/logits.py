"""Logits of every pixel against every prototype: (M2) for `prototype_logits`, and the way back."""

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import LogitsCall, accumulation_dtype
from protocontrast.kernels.backward import OfPixels, add_to_slot, send_back
from protocontrast.kernels.launch import Launch, plan, run, walkers
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prototypes, prepare
from protocontrast.kernels.scores import (
    classes_of,
    kept_of,
    logits_of,
    read_scores,
    scores_of,
    to_features,
    to_rows,
)
from protocontrast.kernels.tiles import (
    load_channels,
    load_tile,
    map_of,
    span_at,
    store_tile,
    tile_at,
    tile_of,
)


@triton.jit
def logits_tile(number, features, prepared, kept, out, META: tl.constexpr):
    """One tile of BLOCK_P pixels of one image."""
    tile = tile_of(features, number, META)
    total, length = scores_of(tile, prepared, kept, META)
    logits, _ = logits_of(total, length, kept.classes.scale, META)
    logits = tl.where(kept.classes.offset[None, :] == 0.0, logits, float("-inf"))
    store_tile(out, tile, tl.arange(0, META.BLOCK_C), logits, META.C)


@triton.jit
def logits_kernel(features, prepared, out, tiles, programs, meta: tl.constexpr):
    """One program per tile; one that keeps the prototypes has every `programs`th of them."""
    META: tl.constexpr = constants(meta)
    kept = kept_of(prepared, META)
    if META.PROGRAMS == 0:
        logits_tile(tl.program_id(0), features, prepared, kept, out, META)
    else:
        for number in range(tl.program_id(0), tiles, programs):
            logits_tile(number, features, prepared, kept, out, META)


@triton.jit
def logits_backward_kernel(
    features, prepared, gradient, partial, walk, grad_output, meta: tl.constexpr
):
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P."""
    META: tl.constexpr = constants(meta)
    image, first = span_at(features, tl.program_id(0), META.SPAN)
    classes = classes_of(prepared.table, META)
    if partial is not None:
        slot = partial + tl.program_id(0).to(tl.int64) * META.C * META.D
    for step in range(0, META.SPAN, META.BLOCK_P):
        tile = tile_at(features, image, first + step, META)
        total, length = read_scores(tile, prepared.matrix, META)
        logits, inverse = logits_of(total, length, classes.scale, META)
        back = load_channels(grad_output, tile, tl.arange(0, META.BLOCK_C), META.C).to(META.ACC)
        # The logit of an absent class is -inf whatever the pixel, so nothing comes back from it.
        grad_logits = tl.where(classes.offset[None, :] == 0.0, back, 0.0)
        radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        if META.SIMILARITY == "cosine":
            radial = tl.sum(grad_logits * logits * inverse, axis=1)
        grad_logits *= inverse
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + tl.arange(0, META.BLOCK_D)
            block = load_tile(tile, offs_d, META)
            if gradient is not None:
                slope = grad_logits * classes.scale[None, :]
                part = to_features(block, slope, radial, inverse, prepared.matrix, offs_d, META)
                store_tile(gradient, tile, offs_d, part, META.D)
            if partial is not None:
                part = to_rows(block, grad_logits, prepared.matrix, offs_d, META)
                add_to_slot(slot, part, offs_d, step, META.C, META.D)
        if partial is not None:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()


def logits(call: LogitsCall, *ready: Tensor) -> Tensor:
    """(B, C, P); absent classes -inf."""
    features, classes = call.features, len(call.prototypes)
    images, _, pixels = features.shape
    out = features.new_empty(images, classes, pixels, dtype=accumulation_dtype(features))
    if images * pixels:
        prepared = prepare(features, Prototypes.of_logits(call, *ready))
        keeps, similarity = call.similarity != "euclidean", call.similarity
        meta, how = plan("logits", features, classes, keeps=keeps, SIMILARITY=similarity)
        tiles, programs = walkers(features, meta)
        arguments = map_of(features), prepared, map_of(out), tiles, programs
        run(Launch(logits_kernel, programs, arguments, meta, how), features)
    return out


def logits_backward(
    grad_output: Tensor, call: LogitsCall, wants: tuple[bool, bool], *ready: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of features and prototypes from that of the logits (B, C, P)."""
    given, of_pixels = Prototypes.of_logits(call, *ready), OfPixels((map_of(grad_output),))
    row, features = "logits_backward", call.features
    return send_back(logits_backward_kernel, row, features, given, of_pixels, wants)
