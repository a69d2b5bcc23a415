"""The class-sum operator and its gradient."""

from typing import Any

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import class_prototypes as eager_class_prototypes
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.native import class_prototypes as native_class_prototypes
from protocontrast.ops.backend import full_precision
from protocontrast.ops.gradient import differentiable, once, only_first_differentiable
from protocontrast.ops.labels import checked_labels, refuse_on_host

FUNCTION = "class_prototypes"
LEAVES: dict[str, Any] = {"eager": eager_class_prototypes, "native": native_class_prototypes}


@torch.library.custom_op(
    "protocontrast::class_sums",
    mutates_args=(),
    schema="(Tensor features, Tensor labels, Tensor? pixel_weight, int num_classes, bool normalize,"
    " bool per_image, int ignore_index, str backend) -> (Tensor, Tensor)",
)
def class_sums_op(
    features: Tensor, labels: Tensor, pixel_weight: Tensor | None, num_classes: int, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) of the pixels of each class."""
    *settings, backend = rest
    refuse_on_host(FUNCTION, labels, num_classes, settings[-1])
    inputs = features, labels, pixel_weight, num_classes, *settings
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import class_prototypes as triton_class_prototypes

            return triton_class_prototypes.class_sums(*inputs)
        return LEAVES[backend].class_sums(*inputs)


@class_sums_op.register_fake
def _(
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    num_classes: int,
    normalize: bool,
    per_image: bool,
    ignore_index: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    dtype = accumulation_dtype(features)
    groups = features.shape[0] if per_image else 1
    return (
        features.new_empty((groups, num_classes, features.shape[1]), dtype=dtype),
        features.new_empty((groups, num_classes), dtype=dtype),
    )


@torch.library.custom_op(
    "protocontrast::class_sums_backward",
    mutates_args=(),
    schema="(Tensor upstream, Tensor features, Tensor labels, Tensor? pixel_weight, bool normalize,"
    " int ignore_index, str backend) -> Tensor",
)
def class_sums_backward_op(upstream: Tensor, features: Tensor, *rest: Any) -> Tensor:
    """Gradient of the features from that of the sums."""
    *inputs, backend = rest
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import class_prototypes_backward as triton_backward

            return triton_backward.class_sums_backward(upstream, features, *inputs)
        return LEAVES[backend].class_sums_backward(upstream, features, *inputs)


@class_sums_backward_op.register_fake
def _(upstream: Tensor, features: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(features)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, labels, pixel_weight, _, normalize, _, ignore_index, backend = inputs
    ctx.save_for_backward(features, labels, pixel_weight)
    ctx.settings = normalize, ignore_index, backend


def _gradients(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    gradient = once(class_sums_backward_op, upstream, *ctx.saved_tensors, *ctx.settings)
    return gradient, *[None] * 7


class_sums_op.register_autograd(
    _gradients, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _ClassSums(torch.autograd.Function):
    """Class sums, differentiable in the features, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return class_sums_op(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        only_first_differentiable(ctx, output)
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return (None,) * 8 if upstream is None else _gradients(ctx, upstream)


def class_sums(
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    num_classes: int,
    normalize: bool,
    per_image: bool,
    ignore_index: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C); G = B per image, else 1."""
    if backend != "naive":
        settings = num_classes, normalize, per_image, ignore_index, backend
        return differentiable(_ClassSums, class_sums_op, features, labels, pixel_weight, *settings)
    labels = checked_labels(labels, num_classes, ignore_index, FUNCTION)
    rows = features.transpose(1, 2).to(accumulation_dtype(features))
    groups = [slice(b, b + 1) for b in range(len(rows))] if per_image else [slice(None)]
    with full_precision(features):
        parts = [
            naive.class_sums(
                rows[group].flatten(0, 1),
                labels[group].flatten(),
                num_classes,
                None if pixel_weight is None else pixel_weight[group].flatten(),
                normalize,
                ignore_index,
            )
            for group in groups
        ]
    if not parts:
        sums = rows.sum(dim=1, keepdim=True).expand(0, num_classes, rows.shape[2])
        return sums, rows.new_zeros(0, num_classes)
    return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])
