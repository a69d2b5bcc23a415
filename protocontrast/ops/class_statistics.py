"""The operator of squared deviations from class means; statistics carry no gradient."""

from typing import Any

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import class_statistics as eager_class_statistics
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops.backend import full_precision
from protocontrast.ops.labels import refuse_on_host

FUNCTION = "class_statistics"


@torch.library.custom_op(
    "protocontrast::class_squares",
    mutates_args=(),
    schema="(Tensor features, Tensor labels, Tensor? pixel_weight, Tensor means, bool normalize,"
    " int ignore_index) -> Tensor",
)
def class_squares_op(
    features: Tensor, labels: Tensor, pixel_weight: Tensor | None, means: Tensor, *rest: Any
) -> Tensor:
    """Sums (G, C, D) of the squared deviations of each class's pixels."""
    refuse_on_host(FUNCTION, labels, means.shape[1], rest[-1])
    with full_precision(features):
        return eager_class_statistics.class_squares(features, labels, pixel_weight, means, *rest)


@class_squares_op.register_fake
def _(features: Tensor, labels: Tensor, pixel_weight: Tensor | None, means: Tensor, *_: Any) -> Any:
    return torch.empty_like(means, dtype=accumulation_dtype(features))


def class_squares(
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    means: Tensor,
    normalize: bool,
    ignore_index: int,
    backend: str,
) -> Tensor:
    """Sums (G, C, D) like the means; G = B per image, else 1."""
    if backend != "naive":
        return class_squares_op(features, labels, pixel_weight, means, normalize, ignore_index)
    rows = features.transpose(1, 2).to(accumulation_dtype(features))
    per_image = len(means) > 1
    groups = [slice(b, b + 1) for b in range(len(rows))] if per_image else [slice(None)]
    with full_precision(features):
        parts = [
            naive.class_squares(
                rows[group].flatten(0, 1),
                labels[group].flatten(),
                None if pixel_weight is None else pixel_weight[group].flatten(),
                mean,
                normalize,
                ignore_index,
            )
            for group, mean in zip(groups, means, strict=len(means) > 0)
        ]
    return torch.stack(parts) if parts else torch.zeros_like(means)
