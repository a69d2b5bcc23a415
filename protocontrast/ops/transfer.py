"""The label-transfer operator; it has no gradient."""

from typing import Any

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import transfer as eager_transfer
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.native import transfer as native_transfer
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.backend import full_precision

LEAVES: dict[str, Any] = {"eager": eager_transfer, "native": native_transfer}


@torch.library.custom_op(
    "protocontrast::transfer",
    mutates_args=(),
    schema="(Tensor features, Tensor prototypes, Tensor? present, float threshold,"
    f" Tensor? class_threshold, {temperatures.SCHEMA}, str measure, str similarity,"
    " float temperature, int ignore_index, str backend) -> (Tensor, Tensor)",
)
def transfer_op(features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Labels (B, P) and the measure's value (B, P) of (B, D, P) features."""
    *inputs, backend = rest
    inputs = temperatures.settled(inputs, 4, 7)
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import transfer as triton_transfer

            return triton_transfer.transfer(features, *inputs)
        return LEAVES[backend].transfer(features, *inputs)


@transfer_op.register_fake
def _(features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    shape = features.shape[0], features.shape[2]
    return (
        features.new_empty(shape, dtype=torch.int64),
        features.new_empty(shape, dtype=accumulation_dtype(features)),
    )


def transfer(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    threshold: float,
    class_threshold: Tensor | None,
    measure: str,
    similarity: str,
    temperature: float | Tensor,
    ignore_index: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    features, prototypes = features.detach(), prototypes.detach()
    if backend != "naive":
        annealed, number = None, temperature
        if isinstance(temperature, Tensor):
            annealed, number = temperature, 1.0
        return transfer_op(
            features, prototypes, present, threshold, class_threshold, annealed, measure,
            similarity, number, ignore_index, backend,
        )  # fmt: skip
    dtype = accumulation_dtype(features)
    images, channels, pixels = features.shape
    limits = torch.full_like(prototypes[:, 0], threshold, dtype=dtype)
    with full_precision(features):
        labels, values = naive.transfer_labels(
            features.transpose(1, 2).reshape(-1, channels).to(dtype),
            prototypes.to(dtype),
            present,
            limits if class_threshold is None else class_threshold.to(dtype),
            measure,
            similarity,
            temperature,
            ignore_index,
        )
    return labels.reshape(images, pixels), values.reshape(images, pixels)
