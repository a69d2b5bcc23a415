"""Nearest prototype, its confidence and the thresholds in one read: (M6), in C.

The function of `eager/transfer.py`, for "cosine" and "dot".
"""

import torch
from torch import Tensor

from protocontrast.native.calls import Transfer, array, readable, wide
from protocontrast.native.library import machine, run


def transfer(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    threshold: float,
    class_threshold: Tensor | None,
    measure: str,
    kind: str,
    temperature: float,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    given = [features, prototypes, present, class_threshold]
    given = [None if tensor is None else readable(tensor) for tensor in given]
    images, channels, pixels = features.shape
    labels = features.new_empty((images, pixels), dtype=torch.int64)
    values = features.new_empty((images, pixels), dtype=wide(features))
    confidence = measure == "confidence"
    run(
        "transfer",
        Transfer(
            machine(features.dtype == torch.float64),
            images,
            channels,
            pixels,
            prototypes.shape[0],
            *map(array, given),
            labels.data_ptr(),
            values.data_ptr(),
            kind == "cosine",
            confidence,
            ignore_index,
            threshold,
            # The similarity itself is wanted exactly, so 1/tau stays out of it.
            temperature if confidence else 1.0,
        ),
    )
    return labels, values
