"""The class-sum operator and its gradient."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import ClassSumsCall
from protocontrast.eager import class_prototypes as eager_class_prototypes
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.native import class_prototypes as native_class_prototypes
from protocontrast.ops.labels import checked_labels, refuse_on_host
from protocontrast.ops.operator import Implementation, Operator
from protocontrast.ops.rows import images_of, in_rows

FUNCTION = "class_prototypes"


def _check(call: ClassSumsCall) -> None:
    refuse_on_host(FUNCTION, call.labels, call.num_classes, call.ignore_index)


def _empty(call: ClassSumsCall) -> list[Tensor]:
    features, dtype = call.features, accumulation_dtype(call.features)
    groups = features.shape[0] if call.per_image else 1
    shapes = (groups, call.num_classes, features.shape[1]), (groups, call.num_classes)
    return [features.new_empty(shape, dtype=dtype) for shape in shapes]


def _naive(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    if not call.per_image:
        sums, counts = naive.class_sums(in_rows(call, FUNCTION, call.num_classes))
        return sums[None], counts[None]
    # A sentence counts the wrong labels of all images.
    labels = checked_labels(call.labels, call.num_classes, call.ignore_index, FUNCTION)
    images = images_of(call._replace(labels=labels))
    parts = [naive.class_sums(in_rows(one, FUNCTION, one.num_classes)) for one in images]
    if not parts:
        sums = call.features.sum(dim=2)[:, None].expand(0, call.num_classes, -1)
        return sums.to(accumulation_dtype(call.features)), _empty(call)[1]
    return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])


def _triton() -> Implementation:
    from protocontrast.kernels import class_prototypes as forward
    from protocontrast.kernels import class_prototypes_backward as backward

    return Implementation(forward.class_sums, backward.class_sums_backward)


OPERATOR = Operator(
    "class_sums", ClassSumsCall, _empty, naive=_naive, triton=_triton,
    eager=Implementation(
        eager_class_prototypes.class_sums, eager_class_prototypes.class_sums_backward
    ),
    native=Implementation(
        native_class_prototypes.class_sums, native_class_prototypes.class_sums_backward
    ),
    check=_check, results=2, differentiable=["features"],
)  # fmt: skip


def class_sums(call: ClassSumsCall, backend: str) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C); G = B per image, else 1."""
    sums, counts = OPERATOR(call, backend)
    return sums, counts
