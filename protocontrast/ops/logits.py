"""The logits operator and its gradients."""

from typing import Any

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import logits as eager_logits
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.backend import full_precision
from protocontrast.ops.gradient import differentiable, kept, once, steady

INPUTS = "Tensor features, Tensor prototypes, Tensor? present, str similarity, float temperature"


@torch.library.custom_op(
    "protocontrast::logits", mutates_args=(), schema=f"({INPUTS}, str backend) -> Tensor"
)
def logits_op(features: Tensor, *rest: Any) -> Tensor:
    """(B, C, P) logits of (B, D, P) features."""
    *inputs, backend = rest
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import logits as triton_logits

            return triton_logits.logits(features, *inputs)
        return eager_logits.logits(features, *inputs)


@logits_op.register_fake
def _(features: Tensor, prototypes: Tensor, *rest: Any) -> Tensor:
    shape = features.shape[0], prototypes.shape[0], features.shape[2]
    return features.new_empty(shape, dtype=accumulation_dtype(features))


@torch.library.custom_op(
    "protocontrast::logits_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {INPUTS}, bool wants_features, bool wants_prototypes,"
    " str backend) -> (Tensor, Tensor)",
)
def logits_backward_op(upstream: Tensor, features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Gradients of features and prototypes."""
    *inputs, backend = rest
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import logits as triton_logits

            return triton_logits.logits_backward(upstream, features, *inputs)
        return eager_logits.logits_backward(upstream, features, *inputs)


@logits_backward_op.register_fake
def _(upstream: Tensor, features: Tensor, prototypes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wants_features, wants_prototypes = rest[-3:-1]
    return (
        torch.empty_like(features) if wants_features else features.new_empty(0),
        torch.empty_like(prototypes) if wants_prototypes else prototypes.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, prototypes, present = inputs[:3]
    if not prototypes.requires_grad:
        prototypes = kept(prototypes)
    ctx.save_for_backward(features, prototypes, kept(present))
    ctx.settings = inputs[3:]


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    wants_features, wants_prototypes = ctx.needs_input_grad[:2]
    *settings, backend = ctx.settings
    wants = wants_features, wants_prototypes
    to_features, to_prototypes = once(
        logits_backward_op, upstream, *ctx.saved_tensors, *settings, *wants, backend
    )
    return (
        to_features if wants_features else None,
        to_prototypes if wants_prototypes else None,
        *[None] * 4,
    )


logits_op.register_autograd(
    _gradients, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _Logits(torch.autograd.Function):
    """Logits, differentiable in features and prototypes, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return logits_op(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, upstream)


def logits(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    similarity: str,
    temperature: float,
    backend: str,
) -> Tensor:
    """(B, C, P) logits of (B, D, P) features; absent classes -inf."""
    prototypes, present = steady(prototypes), steady(present)
    if backend != "naive":
        settings = similarity, temperature, backend
        return differentiable(_Logits, logits_op, features, prototypes, present, *settings)
    dtype = accumulation_dtype(features)
    images, channels, pixels = features.shape
    rows = features.transpose(1, 2).reshape(-1, channels).to(dtype)
    with full_precision(features):
        own = (prototypes if prototypes.requires_grad else kept(prototypes)).to(dtype)
        out = naive.prototype_logits(rows, own, kept(present), similarity, temperature)
    return out.reshape(images, pixels, len(prototypes)).transpose(1, 2)


def tempered(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    similarity: str,
    temperature: float | Tensor,
    backend: str,
) -> Tensor:
    """The same over a temperature that may be a tensor, differentiable in it, too."""
    if not isinstance(temperature, Tensor):
        return logits(features, prototypes, present, similarity, temperature, backend)
    values = logits(features, prototypes, present, similarity, 1.0, backend)
    # -inf over a number is -inf, but has no gradient to it.
    there = values != -torch.inf
    return torch.where(
        there, torch.where(there, values, 0) / temperatures.private(temperature), values
    )
