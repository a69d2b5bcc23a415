"""Logits of every pixel against every prototype: (M2) for `prototype_logits`, in C.

The functions of `eager/logits.py`.
"""

import torch
from torch import Tensor

from protocontrast.calls import LogitsCall, accumulation_dtype
from protocontrast.native.calls import SIMILARITIES, Logits, arrays
from protocontrast.native.library import machine, run


def _sweep(
    call: LogitsCall,
    *,
    out: Tensor | None = None,
    grad_output: Tensor | None = None,
    to_features: Tensor | None = None,
    to_prototypes: Tensor | None = None,
) -> None:
    """One sweep that writes `out`, or the gradients that are given."""
    read = call.features, call.prototypes, call.present, grad_output
    given = arrays(*read, to_features, to_prototypes)
    run(
        "logits",
        Logits(
            machine(call.features.dtype == torch.float64),
            *call.features.shape,
            call.prototypes.shape[0],
            *given,
            None if out is None else out.data_ptr(),
            SIMILARITIES.index(call.similarity),
            float(call.temperature),
        ),
    )


def logits(call: LogitsCall) -> Tensor:
    """(B, C, P); absent classes -inf."""
    images, _, pixels = call.features.shape
    shape = images, call.prototypes.shape[0], pixels
    out = call.features.new_empty(shape, dtype=accumulation_dtype(call.features))
    _sweep(call, out=out)
    return out


def logits_backward(
    grad_output: Tensor, call: LogitsCall, wants: tuple[bool, ...]
) -> tuple[Tensor, Tensor]:
    """Gradients of features and prototypes from that of the logits (B, C, P)."""
    to_features, to_prototypes = (
        torch.empty_like(one) if want else one.new_empty(0)
        for one, want in zip((call.features, call.prototypes), wants, strict=True)
    )
    _sweep(call, grad_output=grad_output, to_features=to_features, to_prototypes=to_prototypes)
    return to_features, to_prototypes
