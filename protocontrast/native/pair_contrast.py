"""Contrast between pairs of pixels: (M17) for `pair_contrast`, in C.

The functions of `eager/pair_contrast.py`.
"""

import torch
from torch import Tensor

from protocontrast.calls import PairRolesCall, accumulation_dtype
from protocontrast.native.calls import SIMILARITIES, PairContrast, arrays
from protocontrast.native.library import machine, run


def _sweep(
    call: PairRolesCall,
    weight: Tensor | None,
    *,
    statistics: Tensor | None = None,
    gradients: tuple[Tensor | None, Tensor | None] = (None, None),
    found: tuple[Tensor | None, ...] = (None, None, None),
) -> None:
    """A call of C that writes what is `found`, or adds to the `gradients`."""
    labels = call.positive_labels, call.negative_labels
    # One tensor for both roles, as it is but for negatives that are given apart.
    places = {(one.data_ptr(), one.stride()) for one in labels}
    read = call.anchors, call.anchor_labels, call.keys, *labels, weight, statistics
    given = arrays(*read, *gradients)
    run(
        "pair_contrast",
        PairContrast(
            machine(call.anchors.dtype == torch.float64),
            call.anchors.shape[0],
            *call.keys.shape,
            *given,
            *(None if one is None else one.data_ptr() for one in found),
            SIMILARITIES.index(call.similarity),
            len(places) == 2,
            call.all_in_denominator,
            call.exclude_self,
            call.ignore_index,
            call.temperature,
        ),
    )


def pair_contrast(call: PairRolesCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight (A,) of the anchors, and (3, A) what backward needs.

    That is the negatives' log-sum-exp and the weights of each positive pair and of the negatives
    together: +inf and twice 0 where an anchor does not count.
    """
    count, dtype = call.anchors.shape[0], accumulation_dtype(call.anchors)
    loss, weight = (call.anchors.new_zeros(count, dtype=dtype) for _ in range(2))
    statistics = call.anchors.new_zeros((3, count), dtype=dtype)
    statistics[0] = torch.inf
    _sweep(call, call.anchor_weight, found=(loss, weight, statistics))
    return loss, weight, statistics


def pair_contrast_backward(
    grad_output: Tensor, call: PairRolesCall, wants: tuple[bool, ...], statistics: Tensor
) -> tuple[Tensor, Tensor]:
    """(M17) gradients of anchors and keys from those of the losses (A,)."""
    to_anchors, to_keys = (
        torch.zeros_like(one) if want else None
        for one, want in zip((call.anchors, call.keys), wants, strict=True)
    )
    # What comes back to an anchor that does not count may be anything.
    weight = torch.where(statistics[1] != 0, grad_output, 0)
    _sweep(call, weight, statistics=statistics, gradients=(to_anchors, to_keys))
    return (
        call.anchors.new_empty(0) if to_anchors is None else to_anchors,
        call.keys.new_empty(0) if to_keys is None else to_keys,
    )
