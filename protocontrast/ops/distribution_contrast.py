"""The operator of the contrast with class distributions, and its gradients."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import distribution_contrast as eager_distribution
from protocontrast.eager.contrast import scale_in_place
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.backend import full_precision, is_plain, transforms_active
from protocontrast.ops.gradient import differentiable, kept, once, only_first_differentiable, steady
from protocontrast.ops.labels import checked_labels, refuse_on_host
from protocontrast.ops.reduction import reduced

FUNCTION = "distribution_contrast"


class Inputs(NamedTuple):
    """The tensors: features (B, D, P), labels (B, P) or soft (B, C, P), two of (C, D)."""

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    variance: Tensor
    present: Tensor | None
    class_weight: Tensor | None
    pixel_weight: Tensor | None


class Settings(NamedTuple):
    """What is not a tensor."""

    normalize: bool
    temperature: float | Tensor
    ignore_index: int


INPUTS = (
    "Tensor features, Tensor labels, Tensor prototypes, Tensor variance, Tensor? present, "
    "Tensor? class_weight, Tensor? pixel_weight"
)
SETTINGS = "bool normalize, float temperature, int ignore_index"
BACKEND = "str backend"
WANTS = "bool wants_features, bool wants_prototypes, bool wants_variance"
DIFFERENTIABLE = (0, 2, 3)
"""Places of features, prototypes and variance among the inputs."""


def _empty_gradients(inputs: Any, wants: Any) -> tuple[Tensor, ...]:
    given = [inputs[place] for place in DIFFERENTIABLE]
    pairs = zip(given, wants, strict=True)
    return tuple(torch.empty_like(one) if want else one.new_empty(0) for one, want in pairs)


@torch.library.custom_op(
    "protocontrast::distribution_contrast",
    mutates_args=(),
    schema=f"({INPUTS}, {SETTINGS}, {BACKEND}) -> (Tensor, Tensor, Tensor)",
)
def distribution_contrast_op(
    features: Tensor, labels: Tensor, prototypes: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel."""
    *inputs, backend = rest
    refuse_on_host(FUNCTION, labels, len(prototypes), inputs[-1])
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import distribution_contrast as triton_distribution

            return triton_distribution.distribution_contrast(features, labels, prototypes, *inputs)
        return eager_distribution.distribution_contrast(features, labels, prototypes, *inputs)


@distribution_contrast_op.register_fake
def _(features: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    shape, dtype = (features.shape[0], features.shape[2]), accumulation_dtype(features)
    return tuple(features.new_empty(shape, dtype=dtype) for _ in range(3))


@torch.library.custom_op(
    "protocontrast::distribution_contrast_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {INPUTS}, Tensor normaliser, {SETTINGS}, {WANTS}, {BACKEND})"
    " -> (Tensor, Tensor, Tensor)",
)
def distribution_contrast_backward_op(
    upstream: Tensor, features: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features, prototypes and variance; empty where not wanted."""
    *inputs, backend = rest
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import distribution_contrast_backward as triton_backward

            return triton_backward.distribution_contrast_backward(upstream, features, *inputs)
        return eager_distribution.distribution_contrast_backward(upstream, features, *inputs)


@distribution_contrast_backward_op.register_fake
def _(upstream: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    return _empty_gradients(rest, rest[-4:-1])


@torch.library.custom_op(
    "protocontrast::distribution_contrast_with_gradient",
    mutates_args=(),
    schema=f"({INPUTS}, {SETTINGS}, bool mean, {WANTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def distribution_contrast_with_gradient_op(
    features: Tensor, labels: Tensor, prototypes: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The reduced loss and its gradients from one read of the features."""
    refuse_on_host(FUNCTION, labels, len(prototypes), rest[-5])
    with full_precision(features):
        return eager_distribution.distribution_contrast_with_gradient(
            features, labels, prototypes, *rest
        )


@distribution_contrast_with_gradient_op.register_fake
def _(features: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    loss = features.new_empty((), dtype=accumulation_dtype(features))
    return loss, *_empty_gradients((features, *rest), rest[-3:])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    # The features' memory is theirs; what a bank may change is kept as a copy.
    tensors = [
        value if place in (0, 1, 6) or (value is not None and value.requires_grad) else kept(value)
        for place, value in enumerate(inputs[:7])
    ]
    ctx.save_for_backward(*tensors, *([] if output is None else [output[2]]))
    ctx.settings = inputs[7:]


def _placed(ctx: Any, gradients: Any, number: int) -> tuple[Tensor | None, ...]:
    found: list[Tensor | None] = [None] * number
    for place, gradient in zip(DIFFERENTIABLE, gradients, strict=True):
        if ctx.needs_input_grad[place]:
            found[place] = gradient
    return tuple(found)


def _gradients(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    wants = [ctx.needs_input_grad[place] for place in DIFFERENTIABLE]
    *settings, backend = ctx.settings
    operator = distribution_contrast_backward_op
    found = once(operator, upstream, *ctx.saved_tensors, *settings, *wants, backend)
    return _placed(ctx, found, 11)


distribution_contrast_op.register_autograd(
    _gradients, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _DistributionContrast(torch.autograd.Function):
    """Loss per pixel, differentiable in three inputs, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return distribution_contrast_op(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        only_first_differentiable(ctx, output)
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return (None,) * 11 if upstream is None else _gradients(ctx, upstream)


class _Reduced(torch.autograd.Function):
    """The reduced loss with its gradient written in the forward sweep: the features are read once.

    The first backward takes the gradient; a second one (retain_graph) computes it again.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        wants = [ctx.needs_input_grad[place] for place in DIFFERENTIABLE]
        loss, *ctx.gradients = distribution_contrast_with_gradient_op(*inputs, *wants)
        _save(ctx, inputs, None)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        wants = [ctx.needs_input_grad[place] for place in DIFFERENTIABLE]
        ready, ctx.gradients = ctx.gradients, None

        def scaled(upstream: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
            found = ready
            if found is None:
                _, *found = distribution_contrast_with_gradient_op(*inputs)
            if not is_plain(upstream):  # a batch of upstream gradients does not fit the buffers
                return tuple(one * upstream for one in found)
            return tuple(scale_in_place(one, upstream) for one in found)

        found = once(scaled, upstream, *ctx.saved_tensors, *ctx.settings, *wants)
        return _placed(ctx, found, 11)


def _naive(inputs: Inputs, settings: Settings) -> tuple[Tensor, Tensor]:
    features, labels, prototypes, variance = inputs[:4]
    if labels.is_floating_point():
        rows = labels.transpose(1, 2).reshape(-1, labels.shape[1])
    else:
        labels = checked_labels(labels, len(prototypes), settings.ignore_index, FUNCTION)
        rows = labels.flatten()
    dtype = accumulation_dtype(features)
    images, channels, pixels = features.shape
    with full_precision(features):
        loss, weight = naive.distribution_contrast(
            features.transpose(1, 2).reshape(-1, channels).to(dtype),
            rows,
            (prototypes if prototypes.requires_grad else kept(prototypes)).to(dtype),
            (variance if variance.requires_grad else kept(variance)).to(dtype),
            kept(inputs.present),
            kept(inputs.class_weight),
            None if inputs.pixel_weight is None else inputs.pixel_weight.flatten(),
            *settings._replace(temperature=temperatures.private(settings.temperature)),
        )
    return loss.reshape(images, pixels), weight.reshape(images, pixels)


def _over_temperature(inputs: Inputs, settings: Settings) -> tuple[Inputs, Settings]:
    """A temperature that is a tensor divides the classes' rows, which carry its gradient."""
    temperature = temperatures.private(settings.temperature)
    if not isinstance(temperature, Tensor):
        return inputs, settings

    def divided(rows: Tensor, divisor: Tensor) -> Tensor:
        own = rows if rows.requires_grad else kept(rows)
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        if inputs.present is not None:  # what absent rows hold may be NaN, and 0 * NaN is NaN
            own = torch.where(kept(inputs.present)[:, None], own, 0)
        return own / divisor

    prototypes = divided(inputs.prototypes, temperature)
    variance = divided(inputs.variance, temperature.square())
    inputs = inputs._replace(prototypes=prototypes, variance=variance)
    return inputs, settings._replace(temperature=1.0)


def distribution_contrast(
    inputs: Inputs, settings: Settings, reduction: str, backend: str
) -> Tensor:
    """The loss: (B, P) for "none", else () with 0 where no pixel is valid."""
    features = inputs.features
    inputs = inputs._replace(
        prototypes=steady(inputs.prototypes),
        variance=steady(inputs.variance),
        present=steady(inputs.present),
        class_weight=steady(inputs.class_weight),
    )
    if backend == "naive":
        loss, weight = _naive(inputs, settings)
    else:
        inputs, settings = _over_temperature(inputs, settings)
        leaves = [inputs[place] for place in DIFFERENTIABLE]
        wanted = torch.is_grad_enabled() and any(one.requires_grad for one in leaves)  # type: ignore[union-attr]
        traced = torch.compiler.is_compiling() or transforms_active()
        # A float16 gradient written before the upstream factor, a loss scale, would underflow.
        narrow = any(one.dtype == torch.float16 for one in leaves)  # type: ignore[union-attr]
        one_pass = backend == "eager" and features.device.type == "cpu"
        if reduction != "none" and wanted and one_pass and not traced and not narrow:
            return _Reduced.apply(*inputs, *settings, reduction == "mean")
        function, operator = _DistributionContrast, distribution_contrast_op
        loss, weight, _ = differentiable(function, operator, *inputs, *settings, backend)
    return reduced(loss, weight, reduction)
