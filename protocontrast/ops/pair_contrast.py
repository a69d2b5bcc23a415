"""The operator of contrast between pairs of pixels: loss per anchor, and its gradients."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import pair_contrast as eager_pair_contrast
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.backend import full_precision
from protocontrast.ops.gradient import differentiable, kept, once, only_first_differentiable, steady
from protocontrast.ops.reduction import reduced


class Settings(NamedTuple):
    """What is not a tensor."""

    similarity: str
    temperature: float | Tensor
    every: bool
    exclude_self: bool
    ignore_index: int


class Inputs(NamedTuple):
    """The tensors: anchors (A, D), keys (K, D), negatives (M, D), int64 labels, weights (A,)."""

    anchors: Tensor
    anchor_labels: Tensor
    keys: Tensor
    key_labels: Tensor
    negatives: Tensor | None
    negative_labels: Tensor | None
    anchor_weight: Tensor | None


INPUTS = (
    "Tensor anchors, Tensor anchor_labels, Tensor keys, Tensor positive_labels, "
    "Tensor negative_labels"
)
SETTINGS = "str similarity, float temperature, bool every, bool exclude_self, int ignore_index"
BACKEND = "str backend"
WANTS = "bool wants_anchors, bool wants_keys"


@torch.library.custom_op(
    "protocontrast::pair_contrast",
    mutates_args=(),
    schema=f"({INPUTS}, Tensor? anchor_weight, {SETTINGS}, {BACKEND}) -> (Tensor, Tensor, Tensor)",
)
def pair_contrast_op(anchors: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and weight of every anchor, and what backward needs.

    A key is a positive by one label and a negative by the other, or not where that is ignored.
    """
    *inputs, backend = rest
    with full_precision(anchors):
        if backend == "triton":
            from protocontrast.kernels import pair_contrast as triton_pair_contrast

            return triton_pair_contrast.pair_contrast(anchors, *inputs)
        return eager_pair_contrast.pair_contrast(anchors, *inputs)


@pair_contrast_op.register_fake
def _(anchors: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    count, dtype = anchors.shape[0], accumulation_dtype(anchors)
    loss, weight = (anchors.new_empty(count, dtype=dtype) for _ in range(2))
    return loss, weight, anchors.new_empty(3, count, dtype=dtype)


@torch.library.custom_op(
    "protocontrast::pair_contrast_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {INPUTS}, Tensor statistics, {SETTINGS}, {WANTS}, {BACKEND})"
    " -> (Tensor, Tensor)",
)
def pair_contrast_backward_op(
    upstream: Tensor, anchors: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    """Gradients of anchors and keys; the scores are taken again."""
    *inputs, backend = rest
    with full_precision(anchors):
        if backend == "triton":
            from protocontrast.kernels import pair_contrast_backward as triton_backward

            return triton_backward.pair_contrast_backward(upstream, anchors, *inputs)
        return eager_pair_contrast.pair_contrast_backward(upstream, anchors, *inputs)


@pair_contrast_backward_op.register_fake
def _(upstream: Tensor, anchors: Tensor, anchor_labels: Tensor, keys: Tensor, *rest: Any) -> Any:
    wants_anchors, wants_keys = rest[-3:-1]
    return (
        torch.empty_like(anchors) if wants_anchors else anchors.new_empty(0),
        torch.empty_like(keys) if wants_keys else keys.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.settings = inputs[6:]


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    wants_anchors, wants_keys = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
    *settings, backend = ctx.settings
    to_anchors, to_keys = once(
        pair_contrast_backward_op,
        upstream,
        *ctx.saved_tensors,
        *settings,
        wants_anchors,
        wants_keys,
        backend,
    )
    return (
        to_anchors if wants_anchors else None,
        None,
        to_keys if wants_keys else None,
        *[None] * 9,
    )


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, upstream)


pair_contrast_op.register_autograd(
    _backward, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _PairContrast(torch.autograd.Function):
    """Loss per anchor, differentiable in anchors and keys, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return pair_contrast_op(*inputs)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        only_first_differentiable(ctx, output)
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return (None,) * 12 if upstream is None else _gradients(ctx, upstream)


def _naive(inputs: Inputs, settings: Settings) -> tuple[Tensor, Tensor]:
    anchors, anchor_labels, keys, key_labels, negatives, negative_labels, weight = inputs
    dtype = accumulation_dtype(anchors)
    with full_precision(anchors):
        return naive.pair_contrast(
            anchors.to(dtype),
            anchor_labels,
            keys.to(dtype),
            key_labels,
            None if negatives is None else negatives.to(dtype),
            negative_labels,
            kept(weight),
            settings.similarity,
            temperatures.private(settings.temperature),
            "all" if settings.every else "negatives",
            settings.exclude_self,
            settings.ignore_index,
        )


def _over_temperature(inputs: Inputs, settings: Settings) -> tuple[Inputs, Settings]:
    """A temperature that is a tensor divides the anchors, which carry its gradient.

    A distance is that of all rows over the temperature.
    """
    temperature = temperatures.private(settings.temperature)
    if not isinstance(temperature, Tensor):
        return inputs, settings
    unit, apart = settings.similarity == "cosine", settings.similarity == "euclidean"

    def other(rows: Tensor) -> Tensor:
        if unit or apart:
            return _divided(steady(rows), unit, temperature if apart else None)
        return rows

    inputs = inputs._replace(
        anchors=_divided(inputs.anchors, unit, temperature),
        keys=other(inputs.keys),
        negatives=None if inputs.negatives is None else other(inputs.negatives),
    )
    kind = "dot" if unit else settings.similarity
    return inputs, settings._replace(similarity=kind, temperature=1.0)


def _divided(rows: Tensor, unit: bool, divisor: Tensor | None) -> Tensor:
    """Rows, if wanted of unit length, over a divisor; one that is not finite has no gradient.

    Without a gradient it would be NaN where nothing comes back to it.
    """
    wide = rows.to(accumulation_dtype(rows))
    finite = torch.isfinite(wide).all(dim=1, keepdim=True)
    found = torch.where(finite, wide, 0)
    other = torch.where(finite, 0, wide.detach())
    if unit:
        # Squares of large and of tiny numbers are no numbers.
        largest = found.detach().abs().amax(dim=1, keepdim=True)
        nothing = largest == 0
        found = found / torch.where(nothing, 1, largest)
        length = torch.where(nothing, 1, found).norm(dim=1, keepdim=True)
        found, other = torch.where(nothing, 0, found / length), other * torch.nan
    if divisor is not None:
        found, other = found / divisor, other / divisor.detach()
    return torch.where(finite, found, other)


def _in_one_dtype(inputs: Inputs) -> Inputs:
    """Products need operands of one dtype, the widest of those given."""
    wide = torch.promote_types(inputs.anchors.dtype, inputs.keys.dtype)
    if inputs.negatives is not None:
        wide = torch.promote_types(wide, inputs.negatives.dtype)
    return inputs._replace(
        anchors=inputs.anchors.to(wide),
        keys=steady(inputs.keys).to(wide),
        negatives=None if inputs.negatives is None else steady(inputs.negatives).to(wide),
    )


def _roles(inputs: Inputs, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """All keys (K + M, D), their labels as positives and as negatives."""
    keys, labels, negatives, others = inputs[2:6]
    if negatives is None or others is None:
        return keys, labels, labels
    no_negatives = torch.full_like(labels, ignore_index)
    no_positives = torch.full_like(others, ignore_index)
    return (
        torch.cat([keys, negatives]),
        torch.cat([labels, no_positives]),
        torch.cat([no_negatives, others]),
    )


def pair_contrast(inputs: Inputs, settings: Settings, reduction: str, backend: str) -> Tensor:
    """The loss: (A,) for "none", else () with 0 where no anchor counts."""
    if backend != "naive":
        inputs, settings = _over_temperature(inputs, settings)
    inputs = _in_one_dtype(inputs)
    if backend == "naive":
        loss, weight = _naive(inputs, settings)
    else:
        loss, weight, _ = differentiable(
            _PairContrast,
            pair_contrast_op,
            inputs.anchors,
            inputs.anchor_labels,
            *_roles(inputs, settings.ignore_index),
            steady(inputs.anchor_weight),
            *settings,
            backend,
        )
    return reduced(loss, weight, reduction)
