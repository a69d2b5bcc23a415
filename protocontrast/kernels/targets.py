"""Device function for what a pixel is pulled to: hard labels or soft targets, times the weights."""

import triton
import triton.language as tl


@triton.jit
def soft_masses(
    targets_ptr, stride_c, stride_p, offs_p, pixels, share,
    C: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(M5) mass t_ic cw_c [BLOCK_P, BLOCK_C] of soft targets, 0 outside the image."""
    offs_c = tl.arange(0, BLOCK_C)
    soft = tl.load(
        targets_ptr
        + offs_p[:, None].to(tl.int64) * stride_p
        + offs_c[None, :].to(tl.int64) * stride_c,
        mask=(offs_p[:, None] < pixels) & (offs_c[None, :] < C),
        other=0.0,
    ).to(ACC)
    return tl.where((soft == 0.0) | (share[None, :] == 0.0), 0.0, soft * share[None, :])


@triton.jit
def masses(
    labels_ptr, stride_c, stride_p, weight_ptr, stride_w, offs_p, pixels, share,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    C: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """(M3), (M5) mass w_i t_ic cw_c [BLOCK_P, BLOCK_C] and its sum over classes [BLOCK_P].

    The sum is exactly 0 where a pixel is ignored, and NaN where its label is no class. Pointers
    are those of the image.
    """
    offs_c = tl.arange(0, BLOCK_C)
    inside = offs_p < pixels
    where_p = offs_p.to(tl.int64)
    if SOFT:
        mass = soft_masses(labels_ptr, stride_c, stride_p, offs_p, pixels, share, C, BLOCK_C, ACC)
    else:
        label = tl.load(labels_ptr + where_p * stride_p, mask=inside, other=0).to(tl.int64)
        used = inside & (label != IGNORE_INDEX)
        member = used[:, None] & (label[:, None] == offs_c[None, :])
        mass = tl.where(member, share[None, :], 0.0)
    if WEIGHTED:
        weight = tl.load(weight_ptr + where_p * stride_w, mask=inside, other=0.0).to(ACC)
        empty = (mass == 0.0) | (weight[:, None] == 0.0)
        mass = tl.where(empty, 0.0, mass * weight[:, None])
    total = tl.sum(mass, axis=1)
    if not SOFT:
        wrong = used & ((label < 0) | (label >= C))
        total = tl.where(wrong, float("nan"), total)
    return mass, total
