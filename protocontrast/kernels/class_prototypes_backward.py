"""Gradient of the class sums to the features: the way back of (M1)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall, accumulation_dtype
from protocontrast.kernels.launch import Launch, plan, run, tile_count
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.meta import constants
from protocontrast.kernels.targets import members_of, targets_of
from protocontrast.kernels.tiles import load_across, map_of, own_tile, store_across


@triton.jit
def slopes_of(table, label, offs_d, META: tl.constexpr):
    """What each pixel's class is to be moved by, [BLOCK_D, BLOCK_P]; 0 for a label of -1.

    Looked up: a table of any size is in the first-level cache, and nothing is rounded.
    """
    near = tl.maximum(label, 0) * (1 if META.BY_CHANNEL else META.D)
    far = offs_d * (META.C if META.BY_CHANNEL else 1)
    places = table + near[None, :] + far[:, None]
    if META.NORMALIZE and META.D % META.BLOCK_D == 0:
        return tl.load(places)
    mask = (label >= 0)[None, :]
    if META.D % META.BLOCK_D != 0:
        mask &= (offs_d < META.D)[:, None]
    return tl.load(places, mask=mask, other=0.0)


@triton.jit
def class_sums_backward_kernel(features, targets, table, stride_t, gradient, meta: tl.constexpr):
    """One program per tile of pixels; plain sums need no features, normalised ones read them."""
    META: tl.constexpr = constants(meta)
    every_d = tl.arange(0, META.BLOCK_D)
    tile = own_tile(features, META)
    table += tile.image * stride_t
    label, factor = members_of(targets, tile, META)
    SINGLE: tl.constexpr = META.BLOCK_D >= META.D
    if SINGLE:
        slope = slopes_of(table, label, every_d, META)
    if META.NORMALIZE:
        squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        for start in range(0, META.D, META.BLOCK_D):
            if not SINGLE:
                slope = slopes_of(table, label, start + every_d, META)
            wide = load_across(tile, start + every_d, META).to(META.ACC)
            squared += tl.sum(wide * wide, axis=0)
            radial += tl.sum(wide * slope, axis=0)
        inverse = inverse_of(pixel_lengths(squared, tile, META))
        radial = radial * inverse * inverse
        factor *= inverse
    # Known to be one trip, this loop would keep the tile in registers from the first one on.
    stop = META.D if features.pixels > 0 else 0
    for start in range(0, stop, META.BLOCK_D):
        if not SINGLE:
            slope = slopes_of(table, label, start + every_d, META)
        sent = slope
        if META.NORMALIZE:
            wide = load_across(tile, start + every_d, META).to(META.ACC)
            sent = slope - wide * radial[None, :]
        if not META.UNWEIGHTED:
            # An ignored pixel may hold NaN.
            sent = tl.where((label >= 0)[None, :], sent * factor[None, :], 0.0)
        store_across(gradient, tile, start + every_d, sent, META.D)


def class_sums_backward(grad_output: Tensor, call: ClassSumsCall, wants: tuple[bool]) -> Tensor:
    """Gradient of the features from that of the sums (G, C, D).

    Plain: dL/df_i = w_i g_y, and the features are not read. Normalised, q = f / |f|:
    dL/df_i = w_i (g_y - q (g_y . q)) / |f|.
    """
    features = call.features
    images, _, pixels = features.shape
    gradient = torch.empty_like(features)
    if images * pixels == 0:
        return gradient
    # Neighbours in a warp, be they pixels or channels, are to find theirs side by side.
    by_channel = gradient.stride(2) == 1
    table = grad_output.to(accumulation_dtype(features))
    table = (table.transpose(1, 2) if by_channel else table).contiguous()
    meta, how = plan(
        "class_sums_backward", features, call.num_classes,
        NORMALIZE=call.normalize, IGNORE_INDEX=call.ignore_index, BY_CHANNEL=by_channel,
        UNWEIGHTED=call.pixel_weight is None and not call.normalize,
    )  # fmt: skip
    stride = table.stride(0) if len(table) > 1 else 0
    arguments = map_of(features), targets_of(call), table, stride, map_of(gradient)
    programs = images * tile_count(pixels, meta.BLOCK_P)
    run(Launch(class_sums_backward_kernel, programs, arguments, meta, how), features)
    return gradient
