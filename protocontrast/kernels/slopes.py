"""Device functions for the slopes of the contrast: d loss / d product of each pixel and class."""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.kernels.lengths import inverse_of
from protocontrast.kernels.scores import logits_of
from protocontrast.kernels.targets import masses, own_class
from protocontrast.kernels.tiles import flat, inside, load_channels, load_pixels, map_of


class Upstream(NamedTuple):
    """A map of the losses' gradient (B, P), and the log-sum-exp of each pixel."""

    grad_output: Any
    lse: Any


def upstream_of(grad_output: Tensor, lse: Tensor) -> Upstream:
    """Both as kernels take them."""
    return Upstream(map_of(grad_output), lse.contiguous())


@triton.jit
def returned(upstream, tile, ACC: tl.constexpr):
    """What comes back to each pixel of a tile, and its log-sum-exp, [BLOCK_P]."""
    lse = tl.load(upstream.lse + flat(tile), mask=inside(tile), other=float("inf"))
    return load_pixels(upstream.grad_output, tile).to(ACC), lse


class Slopes(NamedTuple):
    """Of a tile: d loss / d product [BLOCK_P, BLOCK_C] but for the classes' scale, what to take off
    along the pixel [BLOCK_P], its inverse length, and whether it has a gradient [BLOCK_P, 1]."""

    products: Any
    radial: Any
    inverse: Any
    kept: Any


@triton.jit
def pushed(softmax, targets, tile, table, META: tl.constexpr):
    """d loss / d logit [BLOCK_P, BLOCK_C] by a pixel's softmax, and its weight [BLOCK_P]."""
    offs_c = tl.arange(0, META.BLOCK_C)
    share = table + 2 * META.BLOCK_C
    if targets.labels.pointer.dtype.element_ty.is_floating():
        mass, weight = masses(targets, tile, tl.load(share + offs_c), META)
        return softmax * weight[:, None] - mass, weight
    else:
        label, weight = own_class(targets, tile, share, META)
        own = label[:, None] == offs_c[None, :]
        return tl.where(own, softmax - 1.0, softmax) * weight[:, None], weight


@triton.jit
def slopes_of(total, length, tile, given, prepared, classes, META: tl.constexpr):
    """The slopes of a tile of pixels from its products and what they are divided by.

    `given` are the targets and what comes back to their losses.
    """
    logits, inverse = logits_of(total, length, classes.scale, META)
    return slopes_from(logits, inverse, tile, given, prepared, classes, META)


@triton.jit
def slopes_from(logits, inverse, tile, given, prepared, classes, META: tl.constexpr):
    """The same from what `logits_of` gives."""
    targets, upstream = given
    grad_output, lse = returned(upstream, tile, META.ACC)
    softmax = tl.exp(logits + classes.offset[None, :] - lse[:, None])
    grad_logits, weight = pushed(softmax, targets, tile, prepared.table, META)
    # An ignored pixel's features and what comes back to it may be anything, and so may the
    # features of a pixel to which nothing comes back: neither has a gradient.
    used = (weight != 0.0) & (grad_output != 0.0)
    kept = used[:, None]
    grad_logits = tl.where(kept, grad_logits * grad_output[:, None], 0.0)
    radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    if META.SIMILARITY == "cosine":
        # No slope times a logit that is NaN is NaN.
        radial = tl.where(used, tl.sum(grad_logits * logits * inverse, axis=1), 0.0)
    products = tl.where(kept, grad_logits * inverse, 0.0)
    return Slopes(products, radial, tl.where(kept, inverse, 0.0), kept)


@triton.jit
def slopes_left(tile, given, prepared, classes, META: tl.constexpr):
    """The same of a tile whose logits the forward has left."""
    logits = load_channels(prepared.logits, tile, tl.arange(0, META.BLOCK_C), META.C)
    inverse = tl.full([1, 1], 1.0, META.ACC)
    if META.SIMILARITY == "cosine":
        length = tl.load(prepared.lengths + flat(tile), mask=inside(tile), other=0.0)
        inverse = inverse_of(length)[:, None]
    return slopes_from(logits, inverse, tile, given, prepared, classes, META)
