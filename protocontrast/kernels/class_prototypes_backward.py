"""Gradient of the class sums to the features: the way back of (M1)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall
from protocontrast.kernels.class_prototypes import plan
from protocontrast.kernels.launch import Launch, accumulation_dtype, run, tile_count
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.operands import add_product, load_tile, narrowed
from protocontrast.kernels.targets import masses


@triton.jit
def pulled_block(
    member, grad_sums_ptr, offs_d,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """sum_c member_ic slope_c of a block of channels, [BLOCK_P, BLOCK_D]."""
    offs_c = tl.arange(0, BLOCK_C)
    rows = grad_sums_ptr + offs_c[:, None] * D + offs_d[None, :]
    mask = (offs_c[:, None] < C) & (offs_d[None, :] < D)
    grad_sums = tl.load(rows, mask=mask, other=0.0)
    return add_product(member, grad_sums, None, OPERANDS, PRECISION, ACC)


@triton.jit
def class_sums_backward_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    labels_ptr, stride_lb, stride_lc, stride_lp, weight_ptr, stride_wb, stride_wp,
    grad_sums_ptr, stride_sb, gradient_ptr, stride_gb, stride_gd, stride_gp, pixels,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    NORMALIZE: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per tile of pixels; plain sums need no features, normalised ones read them."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    offs_p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    offs_c = tl.arange(0, BLOCK_C)
    image_ptr = features_ptr + image * stride_xb
    image_slopes = grad_sums_ptr + image * stride_sb
    share = (offs_c < C).to(ACC)
    member, _ = masses(
        labels_ptr + image * stride_lb, stride_lc, stride_lp,
        weight_ptr + image * stride_wb if WEIGHTED else weight_ptr, stride_wp,
        offs_p, pixels, share, SOFT, WEIGHTED, IGNORE_INDEX, C, BLOCK_C, ACC,
    )  # fmt: skip
    kept = tl.sum((member != 0.0).to(tl.int32), axis=1) > 0
    radial = tl.zeros([BLOCK_P], dtype=ACC)
    if NORMALIZE:
        squared = tl.zeros([BLOCK_P], dtype=ACC)
        for start in range(0, D, BLOCK_D):
            offs_d = start + tl.arange(0, BLOCK_D)
            tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D).to(ACC)
            squared += tl.sum(tile * tile, axis=1)
            pulled = pulled_block(
                member, image_slopes, offs_d, OPERANDS, PRECISION, ACC, C, D, BLOCK_C
            )
            radial += tl.sum(pulled * tile, axis=1)
        inverse = inverse_of(
            pixel_lengths(squared, image_ptr, stride_xd, stride_xp, offs_p, pixels, ACC, D, BLOCK_P)
        )
        radial = radial * inverse * inverse
        member *= inverse[:, None]
    for start in range(0, D, BLOCK_D):
        offs_d = start + tl.arange(0, BLOCK_D)
        part = pulled_block(member, image_slopes, offs_d, OPERANDS, PRECISION, ACC, C, D, BLOCK_C)
        if NORMALIZE:
            tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D).to(ACC)
            part -= tile * inverse[:, None] * radial[:, None]
        part = tl.where(kept[:, None], part, 0.0)
        tl.store(
            gradient_ptr
            + image * stride_gb
            + offs_p[:, None].to(tl.int64) * stride_gp
            + offs_d[None, :].to(tl.int64) * stride_gd,
            narrowed(part, gradient_ptr.dtype.element_ty),
            mask=(offs_p[:, None] < pixels) & (offs_d[None, :] < D),
        )


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
    _, arguments, constants, how = plan("class_sums_backward", call)
    grad_sums = grad_output.to(accumulation_dtype(features)).contiguous()
    arguments = {
        **arguments,
        "grad_sums_ptr": grad_sums,
        "stride_sb": grad_sums.stride(0) if len(grad_sums) > 1 else 0,
        "gradient_ptr": gradient,
        "stride_gb": gradient.stride(0),
        "stride_gd": gradient.stride(1),
        "stride_gp": gradient.stride(2),
    }
    programs = images * tile_count(pixels, constants["BLOCK_P"])
    run(Launch(class_sums_backward_kernel, programs, arguments, constants, how), features)
    return gradient
