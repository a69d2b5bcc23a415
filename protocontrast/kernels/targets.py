"""Device function for what a pixel is pulled to: hard labels or soft targets, times the weights."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from protocontrast.calls import ClassSumsCall, ContrastCall, DistributionCall
from protocontrast.kernels.tiles import inside, load_channels, load_pixels, map_of


class Targets(NamedTuple):
    """Maps of labels (B, P), or of soft targets (B, C, P), and of weights (B, P) or None."""

    labels: Any
    weight: Any


def targets_of(call: ContrastCall | DistributionCall | ClassSumsCall) -> Targets:
    """Labels and weights of a call."""
    labels, weight = call.labels, call.pixel_weight
    if call.features.dtype == torch.float64:
        # Triton 3.7 fails to compile a float64 product of what was loaded in 16 bits.
        labels = labels.double() if labels.is_floating_point() else labels
        weight = None if weight is None else weight.double()
    return Targets(map_of(labels), map_of(weight))


@triton.jit
def classes_among(label, tile, META: tl.constexpr):
    """Labels [BLOCK_P] as int32, -1 for a pixel that does not count, and which are no class."""
    used = inside(tile) & (label != META.IGNORE_INDEX)
    known = (label >= 0) & (label < META.C)
    return tl.where(used & known, label, -1).to(tl.int32), used & ~known


@triton.jit
def hard_labels(targets, tile, META: tl.constexpr):
    """`classes_among` the labels of a tile."""
    return classes_among(load_pixels(targets.labels, tile).to(tl.int64), tile, META)


@triton.jit
def members_of(targets, tile, META: tl.constexpr):
    """Labels [BLOCK_P], -1 for a pixel that does not count, and weights."""
    label, _ = hard_labels(targets, tile, META)
    weight = tl.full([META.BLOCK_P], 1.0, META.ACC)
    if targets.weight is not None:
        weight = load_pixels(targets.weight, tile).to(META.ACC)
        label = tl.where(weight == 0.0, -1, label)
    return label, weight


@triton.jit
def soft_masses(targets, tile, share, META: tl.constexpr):
    """(M5) mass t_ic cw_c [BLOCK_P, BLOCK_C] of soft targets, 0 outside the image."""
    soft = load_channels(targets, tile, tl.arange(0, META.BLOCK_C), META.C).to(META.ACC)
    return tl.where((soft == 0.0) | (share[None, :] == 0.0), 0.0, soft * share[None, :])


@triton.jit
def own_class(targets, tile, share, META: tl.constexpr):
    """(M3) the class of each pixel [BLOCK_P], int32, and its weight w_i cw_c, of hard labels.

    `share` points to cw. The weight is exactly 0 where a pixel is ignored, and NaN where its label
    is no class; the class is 0 there.
    """
    label, wrong = hard_labels(targets, tile, META)
    # A label is an address only where it is a class.
    valid = label >= 0
    label = tl.maximum(label, 0)
    total = tl.where(valid, tl.load(share + label), 0.0)
    if targets.weight is not None:
        weight = load_pixels(targets.weight, tile).to(META.ACC)
        total = tl.where((total == 0.0) | (weight == 0.0), 0.0, total * weight)
    return label, tl.where(wrong, float("nan"), total)


@triton.jit
def masses(targets, tile, share, META: tl.constexpr):
    """(M3), (M5) mass w_i t_ic cw_c [BLOCK_P, BLOCK_C] and its sum over classes [BLOCK_P].

    The sum is exactly 0 where a pixel is ignored, and NaN where its label is no class.
    """
    SOFT: tl.constexpr = targets.labels.pointer.dtype.element_ty.is_floating()
    if SOFT:
        mass = soft_masses(targets.labels, tile, share, META)
    else:
        label, wrong = hard_labels(targets, tile, META)
        member = label[:, None] == tl.arange(0, META.BLOCK_C)[None, :]
        mass = tl.where(member, share[None, :], 0.0)
    if targets.weight is not None:
        weight = load_pixels(targets.weight, tile).to(META.ACC)
        empty = (mass == 0.0) | (weight[:, None] == 0.0)
        mass = tl.where(empty, 0.0, mass * weight[:, None])
    total = tl.sum(mass, axis=1)
    if not SOFT:
        total = tl.where(wrong, float("nan"), total)
    return mass, total
