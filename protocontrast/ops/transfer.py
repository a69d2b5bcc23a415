"""The label-transfer operator; it has no gradient."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import TransferCall
from protocontrast.eager import transfer as eager_transfer
from protocontrast.native import transfer as native_transfer
from protocontrast.ops.operator import Implementation, Operator, empty_pixels, named
from protocontrast.ops.rows import by_rows


def _empty(call: TransferCall) -> list[Tensor]:
    measure = empty_pixels(call.features)
    return [torch.empty_like(measure, dtype=torch.int64), measure]


def _triton() -> Implementation:
    from protocontrast.kernels import transfer

    return Implementation(transfer.transfer)


OPERATOR = Operator(
    "transfer", TransferCall, _empty,
    naive=by_rows(naive.transfer_labels, "transfer_labels"), triton=_triton,
    eager=named(eager_transfer, "transfer"),
    native=named(native_transfer, "transfer"), results=2, annealed=True,
)  # fmt: skip


def transfer(call: TransferCall, backend: str) -> tuple[Tensor, Tensor]:
    """Labels (B, P) int64 and the measure's value (B, P)."""
    features, prototypes = call.features.detach(), call.prototypes.detach()
    labels, measure = OPERATOR(call._replace(features=features, prototypes=prototypes), backend)
    return labels, measure
