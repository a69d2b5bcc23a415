"""What the gradients to features and prototypes share: slots, the gradient's store, the launch."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.kernels.configs import configuration
from protocontrast.kernels.launch import (
    Launch,
    accumulation_dtype,
    family,
    options,
    run,
    span_of,
    tile_count,
)
from protocontrast.kernels.operands import narrowed
from protocontrast.kernels.prototypes import Prototypes, finish, prepare
from protocontrast.kernels.scores import to_features


@triton.jit
def add_to_slot(slot_ptr, part, offs_d, again, C: tl.constexpr, D: tl.constexpr):
    """Partial sums [BLOCK_D, BLOCK_C] added to a program's own slot (C, D), or set the first time.

    `again` is 0 the first time, so that nothing need be zero beforehand.
    """
    offs_c = tl.arange(0, part.shape[1])
    where_to = slot_ptr + offs_c[None, :] * D + offs_d[:, None]
    known = tl.where(again > 0, C, 0)
    before = tl.load(where_to, mask=(offs_c[None, :] < known) & (offs_d[:, None] < D), other=0.0)
    tl.store(where_to, before + part, mask=(offs_c[None, :] < C) & (offs_d[:, None] < D))


@triton.jit
def store_gradient(
    tile, grad_logits, radial, inverse, kept, matrix_ptr, image_ptr, stride_d, stride_p,
    offs_p, offs_d, pixels,
    SIMILARITY: tl.constexpr, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    C: tl.constexpr, D: tl.constexpr, ROW: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A block of channels of the features' gradient written; exactly 0 where not `kept`."""
    part = to_features(
        tile, grad_logits, radial, inverse, matrix_ptr, offs_d,
        SIMILARITY, OPERANDS, PRECISION, ACC, C, ROW, BLOCK_C,
    )  # fmt: skip
    store_part(part, kept, image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D)


@triton.jit
def store_part(part, kept, image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D: tl.constexpr):
    """[BLOCK_P, BLOCK_D] of an image's gradient written; exactly 0 where not `kept`."""
    tl.store(
        image_ptr
        + offs_p[:, None].to(tl.int64) * stride_p
        + offs_d[None, :].to(tl.int64) * stride_d,
        narrowed(tl.where(kept[:, None], part, 0.0), image_ptr.dtype.element_ty),
        mask=(offs_p[:, None] < pixels) & (offs_d[None, :] < D),
    )


def send_back(
    kernel: Any,
    row: str,
    features: Tensor,
    given: Prototypes,
    arguments: dict[str, Any],
    constants: dict[str, Any],
    wants: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Start a kernel of the `row` of tile sizes; both gradients, empty where not wanted.

    `arguments` and `constants` are the kernel's own, those of the features among them.
    """
    wants_features, wants_prototypes = wants
    images, channels, pixels = features.shape
    prototypes = given.rows
    classes, width = len(prototypes), features.element_size()
    gradient = torch.empty_like(features) if wants_features else features.new_empty(0)
    if images * pixels == 0:
        return gradient, (
            torch.zeros_like(prototypes) if wants_prototypes else prototypes.new_empty(0)
        )
    prepared = prepare(features, given)
    config = configuration(row, family(features), width, channels, classes)
    span = config.block_p
    partial = None
    if wants_prototypes:
        span = span_of(images, channels, pixels, width, classes)
        slots = images * tile_count(pixels, span)
        partial = features.new_empty(slots, classes, channels, dtype=accumulation_dtype(features))
    strides = gradient.stride() if wants_features else (0, 0, 0)
    launch = Launch(
        kernel,
        images * tile_count(pixels, span),
        {
            **arguments,
            "matrix_ptr": prepared.matrix,
            "table_ptr": prepared.table,
            "gradient_ptr": gradient if wants_features else None,
            "stride_gb": strides[0],
            "stride_gd": strides[1],
            "stride_gp": strides[2],
            "partial_ptr": partial,
        },
        {
            **prepared.constants,
            **constants,
            "WANTS_FEATURES": wants_features,
            "WANTS_PROTOTYPES": wants_prototypes,
            "SPAN": span,
            "BLOCK_D": config.block_d,
            "BLOCK_P": config.block_p,
        },
        options(config.num_warps, config.num_stages),
    )
    run(launch, features)
    if partial is None:
        return gradient, prototypes.new_empty(0)
    total = partial.sum(dim=0)
    return gradient, finish(features, total, given)
