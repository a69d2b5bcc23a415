"""Class sums and counts in one read: (M1) for `class_prototypes`, forward.

The gradient is in class_prototypes_backward.py.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ClassSumsCall
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.configs import Config, configuration, power_of_two
from protocontrast.kernels.contrast import pixel_arguments
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    arithmetic,
    family,
    options,
    run,
    span_of,
    tile_count,
)
from protocontrast.kernels.lengths import inverse_of, pixel_lengths
from protocontrast.kernels.operands import load_tile
from protocontrast.kernels.scores import weighted_sum
from protocontrast.kernels.targets import masses


@triton.jit
def read_lengths(
    image_ptr, stride_d, stride_p, offs_p, pixels,
    ACC: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One over the length of each pixel of a tile, [BLOCK_P]; 0 where it is 0."""
    squared = tl.zeros([BLOCK_P], dtype=ACC)
    for start in range(0, D, BLOCK_D):
        offs_d = start + tl.arange(0, BLOCK_D)
        wide = load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D).to(ACC)
        squared += tl.sum(wide * wide, axis=1)
    return inverse_of(
        pixel_lengths(squared, image_ptr, stride_d, stride_p, offs_p, pixels, ACC, D, BLOCK_P)
    )


@triton.jit
def finite_or_zero(tile, ACC: tl.constexpr):
    """The tile with 0 in place of what is not finite, and how many of each pixel were, [BLOCK_P].

    A product with one-hot labels would spread it to every class, since 0 * NaN is NaN.
    """
    wide = tile.to(ACC)
    finite = wide - wide == 0.0
    return tl.where(finite, tile, tl.zeros_like(tile)), tl.sum((~finite).to(tl.int32), axis=1)


@triton.jit
def strays_of(tile, member, weight, C: tl.constexpr, ACC: tl.constexpr):
    """What `finite_or_zero` left out of the classes' sums, [BLOCK_D, BLOCK_C], class by class."""
    offs_c = tl.arange(0, member.shape[1])
    wide = tile.to(ACC)
    stray = wide - wide != 0.0
    total = tl.zeros([tile.shape[1], member.shape[1]], dtype=ACC)
    for c in range(C):
        own = offs_c[None, :] == c
        inside = tl.sum((own & (member != 0.0)).to(tl.int32), axis=1) > 0
        factor = tl.sum(tl.where(own, weight, 0.0), axis=1)
        pulled = tl.where(inside[:, None] & stray, wide * factor[:, None], 0.0)
        total += tl.where(own, tl.sum(pulled, axis=0)[:, None], 0.0)
    return total


@triton.jit
def add_strays(
    slot_ptr, image_ptr, stride_xd, stride_xp, labels_ptr, stride_lc, stride_lp,
    weight_ptr, stride_wp, first, low, pixels,
    ACC: tl.constexpr, SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    NORMALIZE: tl.constexpr, SPAN: tl.constexpr, GROUP_D: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """A second walk of a span in which a pixel that counts is not finite: its value is added to
    its own class and channel, after the finite ones. Pointers are those of the image.

    It is to happen rarely and in few registers, so BLOCK_P is small."""
    share = (tl.arange(0, BLOCK_C) < C).to(ACC)
    for step in range(0, SPAN, BLOCK_P):
        # The slot's elements may belong to other threads than those that stored them last.
        tl.debug_barrier()
        offs_p = first + step + tl.arange(0, BLOCK_P)
        member, _ = masses(
            labels_ptr, stride_lc, stride_lp, weight_ptr, stride_wp,
            offs_p, pixels, share, SOFT, WEIGHTED, IGNORE_INDEX, C, BLOCK_C, ACC,
        )  # fmt: skip
        weight = member
        if NORMALIZE:
            inverse = read_lengths(
                image_ptr, stride_xd, stride_xp, offs_p, pixels, ACC, D, BLOCK_D, BLOCK_P
            )
            weight = member * inverse[:, None]
        for start in range(0, GROUP_D, BLOCK_D):
            offs_d = low + start + tl.arange(0, BLOCK_D)
            tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
            add_to_slot(slot_ptr, strays_of(tile, member, weight, C, ACC), offs_d, 1, C, D)


@triton.jit
def class_sums_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    labels_ptr, stride_lb, stride_lc, stride_lp, weight_ptr, stride_wb, stride_wp,
    partial_ptr, count_ptr, pixels,
    OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    NORMALIZE: tl.constexpr, SPAN: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr, GROUP_D: tl.constexpr,
):  # fmt: skip
    """One program per SPAN pixels of one image and GROUP_D channels: BLOCK_D, or D for lengths."""
    SINGLE: tl.constexpr = GROUP_D <= BLOCK_D
    groups = tl.cdiv(D, GROUP_D)
    slot = tl.program_id(0) // groups
    low = (tl.program_id(0) % groups) * GROUP_D
    spans = tl.cdiv(pixels, SPAN)
    image = (slot // spans).to(tl.int64)
    first = (slot % spans) * SPAN
    offs_c = tl.arange(0, BLOCK_C)
    share = (offs_c < C).to(ACC)
    image_ptr = features_ptr + image * stride_xb
    slot_ptr = partial_ptr + slot.to(tl.int64) * C * D
    count = tl.zeros([BLOCK_C], dtype=ACC)
    strays = tl.zeros([BLOCK_P], dtype=tl.int32)
    if SINGLE:
        whole = tl.zeros([BLOCK_D, BLOCK_C], dtype=ACC)
    for step in range(0, SPAN, BLOCK_P):
        offs_p = first + step + tl.arange(0, BLOCK_P)
        member, mass = masses(
            labels_ptr + image * stride_lb, stride_lc, stride_lp,
            weight_ptr + image * stride_wb if WEIGHTED else weight_ptr, stride_wp,
            offs_p, pixels, share, SOFT, WEIGHTED, IGNORE_INDEX, C, BLOCK_C, ACC,
        )  # fmt: skip
        count += tl.sum(member, axis=0)
        weight = member
        if NORMALIZE:
            inverse = read_lengths(
                image_ptr, stride_xd, stride_xp, offs_p, pixels, ACC, D, BLOCK_D, BLOCK_P
            )
            # In a product NaN would reach every class; it is added to its own class instead.
            readable = inverse == inverse
            weight = member * tl.where(readable, inverse, 0.0)[:, None]
            unread = (member != 0.0) & (inverse != inverse)[:, None]
            unread = tl.sum(tl.where(unread, float("nan"), 0.0), axis=0)
        for start in range(0, GROUP_D, BLOCK_D):
            offs_d = low + start + tl.arange(0, BLOCK_D)
            tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
            clean, lost = finite_or_zero(tile, ACC)
            strays += tl.where(mass != 0.0, lost, 0)
            part = weighted_sum(clean, weight, OPERANDS, PRECISION, ACC, NORMALIZE)
            if NORMALIZE:
                part += unread[None, :].to(ACC)
            if SINGLE:
                whole += part
            else:
                add_to_slot(slot_ptr, part, offs_d, step, C, D)
        if not SINGLE:
            # The next tile's loads of the slot may belong to other threads than these stores.
            tl.debug_barrier()
    if SINGLE:
        add_to_slot(slot_ptr, whole, low + tl.arange(0, BLOCK_D), 0, C, D)
    # Programs of one slot count the same pixels; the first of them says so.
    told = tl.where(low == 0, C, 0)
    tl.store(count_ptr + slot.to(tl.int64) * C + offs_c, count, mask=offs_c < told)
    if tl.sum(strays) > 0:
        add_strays(
            slot_ptr, image_ptr, stride_xd, stride_xp, labels_ptr + image * stride_lb,
            stride_lc, stride_lp, weight_ptr + image * stride_wb if WEIGHTED else weight_ptr,
            stride_wp, first, low, pixels, ACC, SOFT, WEIGHTED, IGNORE_INDEX, NORMALIZE,
            SPAN, GROUP_D, C, D, BLOCK_C, BLOCK_D, min(BLOCK_P, 32),
        )  # fmt: skip


def plan(
    kernel: str, call: ClassSumsCall
) -> tuple[Config, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Configuration, run-time arguments, constants and options that both kernels share."""
    halved = torch.bfloat16 if kernel == "class_sums_backward" else None
    features, num_classes, channels = call.features, call.num_classes, call.features.shape[1]
    config = configuration(kernel, family(features), features.element_size(), channels, num_classes)
    arguments, constants = pixel_arguments(call)
    constants = {
        **arithmetic(features, halved),
        **constants,
        "IGNORE_INDEX": call.ignore_index,
        "NORMALIZE": call.normalize,
        "C": num_classes,
        "D": channels,
        "BLOCK_C": power_of_two(num_classes),
        "BLOCK_D": config.block_d,
        "BLOCK_P": config.block_p,
    }
    return config, arguments, constants, options(config.num_warps, config.num_stages)


def class_sums(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1.

    What is not finite reaches its own class and channel alone; normalised, NaN every channel.
    """
    features, num_classes = call.features, call.num_classes
    images, channels, pixels = features.shape
    acc = accumulation_dtype(features)
    if images * pixels == 0:
        groups = images if call.per_image else 1
        return (
            features.new_zeros(groups, num_classes, channels, dtype=acc),
            features.new_zeros(groups, num_classes, dtype=acc),
        )
    config, arguments, constants, how = plan("class_sums", call)
    span = span_of(images, channels, pixels, features.element_size(), num_classes)
    spans = tile_count(pixels, span)
    partial = features.new_empty(images, spans, num_classes, channels, dtype=acc)
    count = features.new_empty(images, spans, num_classes, dtype=acc)
    group = channels if call.normalize else config.block_d
    launch = Launch(
        class_sums_kernel,
        images * spans * tile_count(channels, group),
        {**arguments, "partial_ptr": partial, "count_ptr": count},
        {**constants, "SPAN": span, "GROUP_D": group},
        how,
    )
    run(launch, features)
    if call.per_image:
        return partial.sum(dim=1), count.sum(dim=1)
    return partial.sum(dim=(0, 1))[None], count.sum(dim=(0, 1))[None]
