"""What both ways of a target pass read of the classes, and its gradient, that of a contrast: (M4).

What comes back to the loss of a class is the weight of the class in that contrast.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from protocontrast.calls import ContrastCall, TargetPassCall, accumulation_dtype
from protocontrast.kernels.contrast_backward import contrast_backward
from protocontrast.kernels.launch import Launch, accumulating, options, run
from protocontrast.kernels.meta import constants
from protocontrast.kernels.prototypes import Prepared, Prototypes, prepare
from protocontrast.kernels.tiles import vector_of
from protocontrast.kernels.transfer import nearest_table


class Tables(NamedTuple):
    """Prototypes of the transfer and of the loss made ready; the latter None without a loss."""

    near: Prepared
    own: Prepared | None


def tables_of(call: TargetPassCall, ready: Sequence[Tensor] = ()) -> Tables:
    """Both, which may be `ready`: matrix and table of the loss, then of the transfer."""
    if ready:
        return Tables(Prepared(*ready[2:]), Prepared(*ready[:2]))
    own = None
    if call.counted is not None:
        of_loss = Prototypes(
            call.prototypes, call.present, call.counted,
            "cosine", call.temperature, call.keep_absent,
        )  # fmt: skip
        own = prepare(call.features, of_loss)
    near = own if own is not None and not call.transfer else nearest_table(call.of_labels())
    return Tables(near, own)


def ready_for_target_pass(call: TargetPassCall) -> Sequence[Tensor]:
    """Matrix and table of the loss, then of the transfer; nothing without a pixel or a loss."""
    if call.counted is None or not call.features.numel():
        return ()
    near, own = tables_of(call)
    return (*own, *near)  # type: ignore[misc]


@triton.jit
def reweigh_kernel(table, weight, reweighed, meta: tl.constexpr):
    """A table with other shares of the classes that have one and are there, and ones behind it."""
    META: tl.constexpr = constants(meta)
    offs_c = tl.arange(0, META.BLOCK_C)
    scale, offset = tl.load(table + offs_c), tl.load(table + META.BLOCK_C + offs_c)
    used = (tl.load(table + 2 * META.BLOCK_C + offs_c) != 0.0) & (offset == 0.0)
    share = tl.load(weight.pointer + offs_c * weight.stride, mask=offs_c < META.C, other=0.0)
    tl.store(reweighed + offs_c, scale)
    tl.store(reweighed + META.BLOCK_C + offs_c, offset)
    tl.store(reweighed + 2 * META.BLOCK_C + offs_c, tl.where(used, share.to(META.ACC), 0.0))
    tl.store(reweighed + 3 * META.BLOCK_C + offs_c, tl.full([META.BLOCK_C], 1.0, META.ACC))


def target_pass_backward(
    grad_output: Tensor, call: TargetPassCall, wants: tuple[bool], *saved: Tensor
) -> Tensor:
    """Gradient of the features from that of the losses (C,)."""
    labels, lse, filled, *ready = saved
    features, targets = call.features, call.contrasted(labels, filled)
    if not ready:
        contrast = call.of_losses(targets, grad_output)
        everywhere = torch.ones_like(lse[:, :1]).expand_as(lse)
        return contrast_backward(everywhere, contrast, (True, False), lse)[0]
    matrix, table = ready[:2]
    blocks = table.shape[1]
    reweighed = torch.empty(4, blocks, dtype=accumulation_dtype(features), device=features.device)
    meta = accumulating(features, C=len(grad_output), BLOCK_C=blocks)
    arguments = table, vector_of(grad_output), reweighed
    run(Launch(reweigh_kernel, 1, arguments, meta, options(1, 1)), features)
    everywhere = reweighed[3, :1].expand_as(lse)
    contrast = ContrastCall(
        features, targets, call.prototypes, None, None, None,
        "cosine", call.temperature, call.keep_absent, call.ignore_index,
    )  # fmt: skip
    return contrast_backward(everywhere, contrast, (True, False), lse, matrix, reweighed)[0]
