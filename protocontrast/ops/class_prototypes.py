"""The operators of class sums, with their gradient, and of squared deviations from class means."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import ClassSquaresCall, ClassSumsCall, accumulation_dtype
from protocontrast.eager import class_prototypes as eager_class_prototypes
from protocontrast.native import class_prototypes as native_class_prototypes
from protocontrast.ops.labels import checked_labels, class_labels
from protocontrast.ops.operator import Implementation, Operator, named
from protocontrast.ops.rows import images_of, in_rows

FUNCTION = "class_prototypes"


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
    eager=named(eager_class_prototypes, "class_sums"),
    native=named(native_class_prototypes, "class_sums"),
    check=class_labels(FUNCTION, "num_classes"), results=2, differentiable=["features"],
)  # fmt: skip


def class_sums(call: ClassSumsCall, backend: str) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C); G = B per image, else 1."""
    sums, counts = OPERATOR(call, backend)
    return sums, counts


def _empty_squares(call: ClassSquaresCall) -> list[Tensor]:
    return [torch.empty_like(call.means, dtype=accumulation_dtype(call.features))]


def _naive_squares(call: ClassSquaresCall) -> Tensor:
    groups = images_of(call) if call.means.shape[0] > 1 else [call]
    means = call.means.to(accumulation_dtype(call.features))
    parts = [
        naive.class_squares(in_rows(one, "class_statistics", mean.shape[0])._replace(means=mean))
        for one, mean in zip(groups, means, strict=means.shape[0] > 0)
    ]
    return torch.stack(parts) if parts else torch.zeros_like(means)


SQUARES = Operator(
    "class_squares", ClassSquaresCall, _empty_squares, naive=_naive_squares,
    eager=named(eager_class_prototypes, "class_squares"),
    check=class_labels("class_statistics", "means", axis=1),
)  # fmt: skip


def class_squares(call: ClassSquaresCall, backend: str) -> Tensor:
    """Sums (G, C, D) like the means; G = B per image, else 1."""
    return SQUARES(call, backend)
