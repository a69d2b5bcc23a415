"""The target's part of a step in one read: (M1), (M3), (M6) and (M7) for `target_pass`, forward.

Its gradient is the contrast's own, contrast_backward.py, under the fused labels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import TargetPassCall
from protocontrast.kernels.backward import add_to_slot
from protocontrast.kernels.class_prototypes import add_strays, finite_or_zero
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.contrast_backward import contrast_backward
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    feature_arguments,
    halves,
    options,
    run,
    span_of,
    tile_count,
)
from protocontrast.kernels.lengths import lengths_of
from protocontrast.kernels.operands import load_tile
from protocontrast.kernels.prototypes import Prototypes, prepare
from protocontrast.kernels.scores import add_scores, logits_of, waited_for, weighted_sum
from protocontrast.kernels.targets import soft_masses
from protocontrast.kernels.transfer import nearest_of, nearest_table


@triton.jit
def add_both_scores(
    tile, near, own, squared, near_matrix_ptr, matrix_ptr, offs_d,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    TWO_PRODUCTS: tl.constexpr, C: tl.constexpr, ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A block of channels against both sets of prototypes, for which it is loaded once."""
    near, squared = add_scores(
        tile, near, squared, near_matrix_ptr, offs_d,
        SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
    )  # fmt: skip
    if TWO_PRODUCTS:
        own, _ = add_scores(
            tile, own, squared, matrix_ptr, offs_d,
            "dot", OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
        )  # fmt: skip
        own = waited_for(own)
    return near, own, squared


@triton.jit
def target_pass_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp, static_ptr, stride_lb, stride_lp,
    targets_ptr, stride_tb, stride_tc, stride_tp, filling_ptr,
    near_matrix_ptr, near_table_ptr, matrix_ptr, table_ptr, threshold_high, threshold_low,
    label_ptr, moved_ptr, value_ptr, lse_ptr, partial_ptr, count_ptr, loss_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    TRANSFER: tl.constexpr, CONFIDENCE: tl.constexpr, STATIC: tl.constexpr, SOFT: tl.constexpr,
    FILLING: tl.constexpr, LOSS: tl.constexpr, SUMS: tl.constexpr,
    TWO_PRODUCTS: tl.constexpr, NORMALIZE: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    SPAN: tl.constexpr, C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per SPAN pixels of one image, which it walks in tiles of BLOCK_P."""
    RESIDENT: tl.constexpr = BLOCK_D >= D
    spans = tl.cdiv(pixels, SPAN)
    image = (tl.program_id(0) // spans).to(tl.int64)
    first = (tl.program_id(0) % spans) * SPAN
    slot = tl.program_id(0).to(tl.int64)
    offs_c = tl.arange(0, BLOCK_C)
    near_scale = tl.load(near_table_ptr + offs_c)
    near_offset = tl.load(near_table_ptr + BLOCK_C + offs_c)
    if TRANSFER:
        lowest_equal = tl.load(near_table_ptr + 3 * BLOCK_C + offs_c)
    if LOSS:
        scale = tl.load(table_ptr + offs_c)
        offset = tl.load(table_ptr + BLOCK_C + offs_c)
        # Under "floor" an absent class has a share, too; here it carries no loss.
        share = tl.where(near_offset == 0.0, tl.load(table_ptr + 2 * BLOCK_C + offs_c), 0.0)
    image_ptr = features_ptr + image * stride_xb
    # Two float32 numbers, for a float64 one would be rounded on the way into a kernel.
    limit = tl.full([BLOCK_P], threshold_high, ACC) + tl.full([BLOCK_P], threshold_low, ACC)
    one = (offs_c < C).to(ACC)
    count = tl.zeros([BLOCK_C], dtype=ACC)
    lost = tl.zeros([BLOCK_C], dtype=ACC)
    strays = tl.zeros([BLOCK_P], dtype=tl.int32)
    if SUMS:
        slot_ptr = partial_ptr + slot * C * D
        if RESIDENT:
            whole = tl.zeros([BLOCK_D, BLOCK_C], dtype=ACC)
    for step in range(0, SPAN, BLOCK_P):
        offs_p = first + step + tl.arange(0, BLOCK_P)
        inside = offs_p < pixels
        near = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
        own = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
        squared = tl.zeros([BLOCK_P], dtype=ACC)
        if RESIDENT:
            tile = load_tile(
                image_ptr, stride_xd, stride_xp, offs_p, tl.arange(0, BLOCK_D), pixels, D
            )
            near, own, squared = add_both_scores(
                tile, near, own, squared, near_matrix_ptr, matrix_ptr, tl.arange(0, BLOCK_D),
                SIMILARITY, OPERANDS, PRECISION, ACC, TWO_PRODUCTS, C, ROW, BLOCK_C,
            )  # fmt: skip
        else:
            for start in range(0, D, BLOCK_D):
                offs_d = start + tl.arange(0, BLOCK_D)
                tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
                near, own, squared = add_both_scores(
                    tile, near, own, squared, near_matrix_ptr, matrix_ptr, offs_d,
                    SIMILARITY, OPERANDS, PRECISION, ACC, TWO_PRODUCTS, C, ROW, BLOCK_C,
                )  # fmt: skip
        length = lengths_of(
            near, squared, image_ptr, stride_xd, stride_xp, offs_p, pixels, near_matrix_ptr,
            SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
        )  # fmt: skip
        logits, inverse = logits_of(near, length, near_scale, SIMILARITY, ACC)
        into = image * pixels + offs_p
        label = tl.full([BLOCK_P], IGNORE_INDEX, tl.int64)
        value = tl.zeros([BLOCK_P], dtype=ACC)
        if TRANSFER:
            found, value, somewhere = nearest_of(
                logits + near_offset[None, :], near_offset, lowest_equal, CONFIDENCE, BLOCK_C
            )
            label = tl.where((value >= limit) & somewhere, found.to(tl.int64), label)
        if SOFT:
            soft = soft_masses(
                targets_ptr + image * stride_tb, stride_tc, stride_tp, offs_p, pixels, one,
                C, BLOCK_C, ACC,
            )  # fmt: skip
            if TRANSFER:
                # Where the targets have a mass they win.
                moved = tl.where(tl.sum(soft, axis=1) == 0.0, label, IGNORE_INDEX)
                tl.store(moved_ptr + into, moved, mask=inside)
                filling = one[None, :]
                if FILLING:
                    filling *= tl.load(filling_ptr + offs_p, mask=inside, other=0.0).to(ACC)[
                        :, None
                    ]
                soft = tl.where(moved[:, None] == offs_c[None, :], filling, soft)
        if STATIC:
            given = tl.load(
                static_ptr + image * stride_lb + offs_p.to(tl.int64) * stride_lp,
                mask=inside,
                other=0,
            ).to(tl.int64)
            label = tl.where(given != IGNORE_INDEX, given, label)
        tl.store(label_ptr + into, label, mask=inside)
        tl.store(value_ptr + into, value, mask=inside)
        used = inside & (label != IGNORE_INDEX)
        member = tl.where(used[:, None] & (label[:, None] == offs_c[None, :]), one[None, :], 0.0)
        count += tl.sum(member, axis=0)
        if LOSS:
            if TWO_PRODUCTS:
                logits, _ = logits_of(own, length, scale, SIMILARITY, ACC)
            logits += offset[None, :]
            peak = tl.max(logits, axis=1)
            lse = peak + tl.log(tl.sum(tl.exp(logits - peak[:, None]), axis=1))
            if SOFT:
                unused = (soft == 0.0) | (share[None, :] == 0.0)
                mass = tl.where(unused, 0.0, soft * share[None, :])
            else:
                mass = member * share[None, :]
            ignored = tl.sum(mass, axis=1) == 0.0
            by_class = tl.where(mass == 0.0, 0.0, mass * (lse[:, None] - logits))
            if STATIC:
                wrong = used & ((label < 0) | (label >= C))
                # Of two axes: triton 3.7 has no layout on sm_100 for the sum of a row to a number.
                by_class = tl.where(wrong[:, None], float("nan"), by_class)
            lost += tl.sum(by_class, axis=0)
            # exp(z - inf) = 0: an ignored pixel has no softmax, whatever its features hold.
            lse = tl.where(ignored, float("inf"), lse)
        else:
            lse = tl.full([BLOCK_P], float("inf"), ACC)
        tl.store(lse_ptr + into, lse, mask=inside)
        if SUMS:
            weight = member
            if NORMALIZE:
                over = tl.sum(inverse, axis=1)  # of one column
                # In a product NaN would reach every class; it is added to its own class instead.
                readable = over == over
                weight = member * tl.where(readable, over, 0.0)[:, None]
                unread = (member != 0.0) & (over != over)[:, None]
                unread = tl.sum(tl.where(unread, float("nan"), 0.0), axis=0)
            for start in range(0, D, BLOCK_D):
                offs_d = start + tl.arange(0, BLOCK_D)
                if not RESIDENT:
                    tile = load_tile(image_ptr, stride_xd, stride_xp, offs_p, offs_d, pixels, D)
                clean, left_out = finite_or_zero(tile, ACC)
                strays += tl.where(used, left_out, 0)
                part = weighted_sum(clean, weight, OPERANDS, PRECISION, ACC, NORMALIZE)
                if NORMALIZE:
                    part += unread[None, :].to(ACC)
                if RESIDENT:
                    whole += part
                else:
                    add_to_slot(slot_ptr, part, offs_d, step, C, D)
            if not RESIDENT:
                # The next tile's loads of the slot may belong to other threads than these stores.
                tl.debug_barrier()
    if SUMS and RESIDENT:
        add_to_slot(slot_ptr, whole, tl.arange(0, BLOCK_D), 0, C, D)
    if SUMS:  # noqa: SIM102 (known when the kernel is compiled, as the other is not)
        if tl.sum(strays) > 0:
            add_strays(
                slot_ptr, image_ptr, stride_xd, stride_xp, label_ptr + image * pixels, 0, 1,
                label_ptr, 0, first, 0, pixels, ACC, False, False, IGNORE_INDEX, NORMALIZE,
                SPAN, BLOCK_D if RESIDENT else D, C, D, BLOCK_C, BLOCK_D, min(BLOCK_P, 32),
            )  # fmt: skip
    tl.store(count_ptr + slot * C + offs_c, count, mask=offs_c < C)
    tl.store(loss_ptr + slot * C + offs_c, lost, mask=offs_c < C)


def target_pass(call: TargetPassCall) -> tuple[Tensor, ...]:
    """Losses (C,), sums (C, D), counts (C,); fused labels, measure and log-sum-exp (B, P).

    The last results are the targets with transferred labels where they had no mass, and the
    gradient of the summed loss; empty where not wanted.
    """
    features, static, targets, filling = call.features, call.static, call.targets, call.filling
    prototypes, counted, transfer = call.prototypes, call.counted, call.transfer
    images, channels, pixels = features.shape
    classes, width = len(prototypes), features.element_size()
    acc = accumulation_dtype(features)
    labels = features.new_empty(images, pixels, dtype=torch.int64)
    values, lse = (features.new_empty(images, pixels, dtype=acc) for _ in range(2))
    filled = features.new_empty(0)
    if targets is not None and transfer:
        filled = targets.new_empty(targets.shape)
    if images * pixels == 0:
        zeros = (features.new_zeros(shape, dtype=acc) for shape in (classes, (classes, channels)))
        losses, sums = zeros
        gradient = torch.zeros_like(features) if call.wants_gradient else features.new_empty(0)
        return losses, sums, losses.clone(), labels, values, lse, filled, gradient
    confidence = call.measure == "confidence"
    one_product = not transfer or (call.nearest is None and confidence)
    own = None
    if counted is not None:
        of_loss = Prototypes(
            prototypes, call.present, counted, "cosine", call.temperature, call.keep_absent
        )
        own = prepare(features, of_loss)
    near = own
    if near is None or transfer:
        near = nearest_table(call.of_labels())
    own = near if own is None else own
    config = configuration("target_pass", family(features), width, channels, classes)
    span = span_of(images, channels, pixels, width, classes)
    spans = tile_count(pixels, span)
    partial = None
    if call.wants_sums:
        partial = features.new_empty(images * spans, classes, channels, dtype=acc)
    count, lost = (features.new_empty(images * spans, classes, dtype=acc) for _ in range(2))
    given, moved = targets, torch.empty_like(labels) if filled.numel() else None
    if targets is not None and features.dtype == torch.float64:
        # Triton 3.7 fails to compile a float64 product of what was loaded in 16 bits.
        targets = targets.double()
    threshold_high, threshold_low = halves(call.threshold)
    launch = Launch(
        target_pass_kernel,
        images * spans,
        {
            **feature_arguments(features),
            "static_ptr": static,
            "stride_lb": 0 if static is None else static.stride(0),
            "stride_lp": 0 if static is None else static.stride(1),
            "targets_ptr": targets,
            "stride_tb": 0 if targets is None else targets.stride(0),
            "stride_tc": 0 if targets is None else targets.stride(1),
            "stride_tp": 0 if targets is None else targets.stride(2),
            "filling_ptr": filling,
            "near_matrix_ptr": near.matrix,
            "near_table_ptr": near.table,
            "matrix_ptr": own.matrix,
            "table_ptr": own.table,
            "threshold_high": threshold_high,
            "threshold_low": threshold_low,
            "label_ptr": labels,
            "moved_ptr": moved,
            "value_ptr": values,
            "lse_ptr": lse,
            "partial_ptr": partial,
            "count_ptr": count,
            "loss_ptr": lost,
        },
        {
            **near.constants,
            "TRANSFER": transfer,
            "CONFIDENCE": confidence,
            "STATIC": static is not None,
            "SOFT": targets is not None,
            "FILLING": filling is not None,
            "LOSS": counted is not None,
            "SUMS": call.wants_sums,
            "TWO_PRODUCTS": counted is not None and not one_product,
            "NORMALIZE": call.normalize,
            "IGNORE_INDEX": call.ignore_index,
            "SPAN": span,
            "BLOCK_D": config.block_d,
            "BLOCK_P": config.block_p,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)
    if partial is None:
        sums = features.new_zeros(classes, channels, dtype=acc)
    else:
        sums = partial.sum(dim=0)
    if given is not None and moved is not None:
        mass = 1 if filling is None else filling.to(given.dtype)
        rows = torch.arange(classes, device=moved.device)[:, None]
        filled = torch.where(moved[:, None] == rows, mass, given).contiguous()
    gradient = features.new_empty(0)
    if call.wants_gradient:
        each = torch.ones_like(lost[0])
        gradient = target_pass_backward(each, call, (True,), labels, lse, filled)
    return lost.sum(dim=0), sums, count.sum(dim=0), labels, values, lse, filled, gradient


def target_pass_backward(
    grad_output: Tensor,
    call: TargetPassCall,
    wants: tuple[bool],
    labels: Tensor,
    lse: Tensor,
    filled: Tensor,
) -> Tensor:
    """Gradient of the features from that of the losses (C,): a class weight of the contrast."""
    contrast = call.of_losses(call.contrasted(labels, filled), grad_output)
    everywhere = torch.ones_like(lse[:, :1]).expand_as(lse)
    return contrast_backward(everywhere, contrast, (True, False), lse)[0]
