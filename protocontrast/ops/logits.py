"""The logits operator and its gradients."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import LogitsCall
from protocontrast.eager import logits as eager_logits
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.native import logits as native_logits
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.operator import Implementation, Operator
from protocontrast.ops.rows import in_rows, per_image


def _empty(call: LogitsCall) -> list[Tensor]:
    images, _, pixels = call.features.shape
    shape = images, call.prototypes.shape[0], pixels
    return [call.features.new_empty(shape, dtype=accumulation_dtype(call.features))]


def _naive(call: LogitsCall) -> Tensor:
    rows = in_rows(call, "prototype_logits", call.prototypes.shape[0])
    return per_image(naive.prototype_logits(rows), call.features)


def _triton() -> Implementation:
    from protocontrast.kernels import logits

    return Implementation(logits.logits, logits.logits_backward)


OPERATOR = Operator(
    "logits", LogitsCall, _empty, naive=_naive, triton=_triton,
    eager=Implementation(eager_logits.logits, eager_logits.logits_backward),
    native=Implementation(native_logits.logits, native_logits.logits_backward),
    differentiable=["features", "prototypes"], private=["prototypes", "present"],
)  # fmt: skip


def logits(call: LogitsCall, backend: str) -> Tensor:
    """(B, C, P) logits of (B, D, P) features; absent classes -inf."""
    if not isinstance(call.temperature, Tensor):
        return OPERATOR(call, backend)
    values = OPERATOR(call._replace(temperature=1.0), backend)
    # -inf over a number is -inf, but has no gradient to it.
    there = values != -torch.inf
    temperature = temperatures.private(call.temperature)
    return torch.where(there, torch.where(there, values, 0) / temperature, values)
