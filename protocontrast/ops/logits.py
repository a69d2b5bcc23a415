"""The logits operator and its gradients."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import LogitsCall, accumulation_dtype
from protocontrast.eager import logits as eager_logits
from protocontrast.native import logits as native_logits
from protocontrast.ops.gradient import private_temperature
from protocontrast.ops.operator import Implementation, Operator, named
from protocontrast.ops.rows import by_rows


def _empty(call: LogitsCall) -> list[Tensor]:
    images, _, pixels = call.features.shape
    shape = images, call.prototypes.shape[0], pixels
    return [call.features.new_empty(shape, dtype=accumulation_dtype(call.features))]


def _triton() -> Implementation:
    from protocontrast.kernels import logits, prototypes

    return Implementation(logits.logits, logits.logits_backward, ready=prototypes.ready_for_logits)


OPERATOR = Operator(
    "logits", LogitsCall, _empty,
    naive=by_rows(naive.prototype_logits, "prototype_logits"), triton=_triton,
    eager=named(eager_logits, "logits"),
    native=named(native_logits, "logits"),
    differentiable=["features", "prototypes"], private=["prototypes", "present"],
    ready=["matrix", "table"],
)  # fmt: skip


def logits(call: LogitsCall, backend: str) -> Tensor:
    """(B, C, P) logits of (B, D, P) features; absent classes -inf."""
    if not isinstance(call.temperature, Tensor):
        return OPERATOR(call, backend)
    values = OPERATOR(call._replace(temperature=1.0), backend)
    # -inf over a number is -inf, but has no gradient to it.
    there = values != -torch.inf
    temperature = private_temperature(call.temperature)
    return torch.where(there, torch.where(there, values, 0) / temperature, values)
