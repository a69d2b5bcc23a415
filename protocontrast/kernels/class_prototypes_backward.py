"""Gradient of the class sums to the features: the way back of (M1)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall
from protocontrast.kernels.launch import Launch, accumulation_dtype, plan, run, tile_count
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.meta import constants
from protocontrast.kernels.operands import add_product
from protocontrast.kernels.targets import masses, targets_of
from protocontrast.kernels.tiles import load_tile, map_of, own_tile, store_tile


@triton.jit
def pulled_block(member, grad_sums, offs_d, META: tl.constexpr):
    """sum_c member_ic slope_c of a block of channels, [BLOCK_P, BLOCK_D]."""
    offs_c = tl.arange(0, META.BLOCK_C)
    rows = grad_sums + offs_c[:, None] * META.D + offs_d[None, :]
    mask = (offs_c[:, None] < META.C) & (offs_d[None, :] < META.D)
    return add_product(member, tl.load(rows, mask=mask, other=0.0), None, META.OPERANDS, META)


@triton.jit
def class_sums_backward_kernel(
    features, targets, grad_sums, stride_s, gradient, meta: tl.constexpr
):
    """One program per tile of pixels; plain sums need no features, normalised ones read them."""
    META: tl.constexpr = constants(meta)
    tile = own_tile(features, META)
    slopes = grad_sums + tile.image * stride_s
    share = (tl.arange(0, META.BLOCK_C) < META.C).to(META.ACC)
    member, _ = masses(targets, tile, share, META)
    kept = tl.sum((member != 0.0).to(tl.int32), axis=1) > 0
    radial = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    if META.NORMALIZE:
        squared = tl.zeros([META.BLOCK_P], dtype=META.ACC)
        for start in range(0, META.D, META.BLOCK_D):
            offs_d = start + tl.arange(0, META.BLOCK_D)
            wide = load_tile(tile, offs_d, META).to(META.ACC)
            squared += tl.sum(wide * wide, axis=1)
            radial += tl.sum(pulled_block(member, slopes, offs_d, META) * wide, axis=1)
        inverse = inverse_of(pixel_lengths(squared, tile, META))
        radial = radial * inverse * inverse
        member *= inverse[:, None]
    for start in range(0, META.D, META.BLOCK_D):
        offs_d = start + tl.arange(0, META.BLOCK_D)
        part = pulled_block(member, slopes, offs_d, META)
        if META.NORMALIZE:
            wide = load_tile(tile, offs_d, META).to(META.ACC)
            part -= wide * inverse[:, None] * radial[:, None]
        store_tile(gradient, tile, offs_d, tl.where(kept[:, None], part, 0.0), META.D)


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
    meta, how = plan("class_sums_backward", features, call.num_classes, halved=torch.bfloat16)
    meta = meta._replace(NORMALIZE=call.normalize, IGNORE_INDEX=call.ignore_index)
    grad_sums = grad_output.to(accumulation_dtype(features)).contiguous()
    stride = grad_sums.stride(0) if len(grad_sums) > 1 else 0
    arguments = map_of(features), targets_of(call), grad_sums, stride, map_of(gradient)
    programs = images * tile_count(pixels, meta.BLOCK_P)
    run(Launch(class_sums_backward_kernel, programs, arguments, meta, how), features)
    return gradient
