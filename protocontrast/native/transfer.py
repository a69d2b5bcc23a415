"""Nearest prototype, its confidence and the thresholds in one read: (M6), in C.

The function of `eager/transfer.py`, for "cosine" and "dot".
"""

import torch
from torch import Tensor

from protocontrast.calls import TransferCall, accumulation_dtype
from protocontrast.native.calls import Transfer, arrays
from protocontrast.native.library import machine, run


def transfer(call: TransferCall) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    features, prototypes = call.features, call.prototypes
    given = arrays(features, prototypes, call.present, call.class_threshold)
    shape = features.shape[0], features.shape[2]
    labels = features.new_empty(shape, dtype=torch.int64)
    values = features.new_empty(shape, dtype=accumulation_dtype(features))
    confidence = call.measure == "confidence"
    run(
        "transfer",
        Transfer(
            machine(features.dtype == torch.float64),
            *features.shape,
            prototypes.shape[0],
            *given,
            labels.data_ptr(),
            values.data_ptr(),
            call.similarity == "cosine",
            confidence,
            call.ignore_index,
            call.threshold,
            # The similarity itself is wanted exactly, so 1/tau stays out of it.
            float(call.temperature) if confidence else 1.0,
        ),
    )
    return labels, values
