"""Contrast of pixels and class distributions: (D3) for `distribution_contrast`, forward.

One read of the features, each tile of which is multiplied with the means and, squared, with the
variances. Its gradients are in distribution_contrast_backward.py.
"""

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import DistributionCall
from protocontrast.kernels.configs import configuration
from protocontrast.kernels.contrast import pixel_arguments
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    options,
    run,
    tile_count,
)
from protocontrast.kernels.spreads import parts_of, prepare_both, read_parts
from protocontrast.kernels.targets import masses


@triton.jit
def distribution_contrast_kernel(
    features_ptr, stride_xb, stride_xd, stride_xp,
    labels_ptr, stride_lb, stride_lc, stride_lp, weight_ptr, stride_wb, stride_wp,
    matrix_ptr, table_ptr, spread_ptr, breadth_ptr, loss_ptr, mass_ptr, lse_ptr, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, SPREAD_OPERANDS: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr,
    SOFT: tl.constexpr, WEIGHTED: tl.constexpr, IGNORE_INDEX: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One program per tile of BLOCK_P pixels of one image."""
    tiles = tl.cdiv(pixels, BLOCK_P)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    offs_p = (tl.program_id(0) % tiles) * BLOCK_P + tl.arange(0, BLOCK_P)
    offs_c = tl.arange(0, BLOCK_C)
    total, squared, bonus = read_parts(
        features_ptr + image * stride_xb, stride_xd, stride_xp, offs_p, pixels,
        matrix_ptr, spread_ptr, SIMILARITY, OPERANDS, SPREAD_OPERANDS, PRECISION, ACC,
        C, D, ROW, BLOCK_C, BLOCK_D, BLOCK_P,
    )  # fmt: skip
    scale = tl.load(table_ptr + offs_c)
    offset = tl.load(table_ptr + BLOCK_C + offs_c)
    share = tl.load(table_ptr + 2 * BLOCK_C + offs_c)
    breadth = tl.load(breadth_ptr + offs_c)
    mass, weight = masses(
        labels_ptr + image * stride_lb, stride_lc, stride_lp,
        weight_ptr + image * stride_wb if WEIGHTED else weight_ptr, stride_wp,
        offs_p, pixels, share, SOFT, WEIGHTED, IGNORE_INDEX, C, BLOCK_C, ACC,
    )  # fmt: skip
    scores, bonus, _ = parts_of(
        total, squared, bonus, scale, breadth,
        features_ptr + image * stride_xb, stride_xd, stride_xp, offs_p, pixels,
        matrix_ptr, spread_ptr, SIMILARITY, ACC, C, D, ROW, BLOCK_C, BLOCK_P,
    )  # fmt: skip
    logits = scores + bonus + offset[None, :]
    peak = tl.max(logits, axis=1)
    lse = peak + tl.log(tl.sum(tl.exp(logits - peak[:, None]), axis=1))
    # The positive has no bonus: it is pulled to the mean.
    target_logit = tl.sum(tl.where(mass == 0.0, 0.0, mass * scores), axis=1)
    # An ignored pixel may hold NaN, which stays in its own row of the products and ends here.
    ignored = weight == 0.0
    loss = tl.where(ignored, 0.0, weight * lse - target_logit)
    into = image * pixels + offs_p
    inside = offs_p < pixels
    tl.store(loss_ptr + into, loss, mask=inside)
    tl.store(mass_ptr + into, weight, mask=inside)
    # exp(z - inf) = 0: an ignored pixel has no softmax, whatever its features hold.
    tl.store(lse_ptr + into, tl.where(ignored, float("inf"), lse), mask=inside)


def distribution_contrast(call: DistributionCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    features = call.features
    images, channels, pixels = features.shape
    acc = accumulation_dtype(features)
    loss, mass, lse = (features.new_empty(images, pixels, dtype=acc) for _ in range(3))
    if images * pixels == 0:
        return loss, mass, lse
    both, constants = prepare_both(call)
    arguments, targets = pixel_arguments(call)
    outputs = {"loss_ptr": loss, "mass_ptr": mass, "lse_ptr": lse}
    config = configuration(
        "distribution_contrast", family(features), features.element_size(), channels,
        len(call.prototypes),
    )  # fmt: skip
    launch = Launch(
        distribution_contrast_kernel,
        images * tile_count(pixels, config.block_p),
        {**arguments, **both, **outputs},
        {
            **constants,
            **targets,
            "IGNORE_INDEX": call.ignore_index,
            "BLOCK_D": config.block_d,
            "BLOCK_P": config.block_p,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)
    return loss, mass, lse
