"""The operator of squared deviations from class means; statistics carry no gradient."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import ClassSquaresCall
from protocontrast.eager import class_statistics as eager_class_statistics
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.labels import refuse_on_host
from protocontrast.ops.operator import Implementation, Operator
from protocontrast.ops.rows import images_of, in_rows

FUNCTION = "class_statistics"


def _check(call: ClassSquaresCall) -> None:
    refuse_on_host(FUNCTION, call.labels, call.means.shape[1], call.ignore_index)


def _empty(call: ClassSquaresCall) -> list[Tensor]:
    return [torch.empty_like(call.means, dtype=accumulation_dtype(call.features))]


def _naive(call: ClassSquaresCall) -> Tensor:
    groups = images_of(call) if call.means.shape[0] > 1 else [call]
    means = call.means.to(accumulation_dtype(call.features))
    parts = [
        naive.class_squares(in_rows(one, FUNCTION, mean.shape[0])._replace(means=mean))
        for one, mean in zip(groups, means, strict=means.shape[0] > 0)
    ]
    return torch.stack(parts) if parts else torch.zeros_like(means)


OPERATOR = Operator(
    "class_squares", ClassSquaresCall, _empty, naive=_naive,
    eager=Implementation(eager_class_statistics.class_squares), check=_check,
)  # fmt: skip


def class_squares(call: ClassSquaresCall, backend: str) -> Tensor:
    """Sums (G, C, D) like the means; G = B per image, else 1."""
    return OPERATOR(call, backend)
