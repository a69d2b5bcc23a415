"""The contrast operator: loss, weight and log-sum-exp per pixel, and its gradients."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import contrast as eager_contrast
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.native import contrast as native_contrast
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.backend import full_precision, is_plain, transforms_active
from protocontrast.ops.gradient import differentiable, kept, once, only_first_differentiable, steady
from protocontrast.ops.labels import checked_labels, refuse_on_host
from protocontrast.ops.learnt import learnt_contrast
from protocontrast.ops.reduction import reduced
from protocontrast.ops.smoothing import smoothed

FUNCTION = "pixel_prototype_contrast"
LEAVES: dict[str, Any] = {"eager": eager_contrast, "native": native_contrast}


class Settings(NamedTuple):
    """What is not a tensor."""

    similarity: str
    temperature: float | Tensor
    floor: bool
    ignore_index: int


class Inputs(NamedTuple):
    """The tensors: features (B, D, P), labels (B, P) or soft (B, C, P), prototypes (C, D)."""

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    present: Tensor | None
    class_weight: Tensor | None
    pixel_weight: Tensor | None
    annealed: Tensor | None = None


INPUTS = (
    "Tensor features, Tensor labels, Tensor prototypes, Tensor? present, Tensor? class_weight, "
    f"Tensor? pixel_weight, {temperatures.SCHEMA}"
)
SETTINGS = "str similarity, float temperature, bool floor, int ignore_index"
BACKEND = "str backend"
WANTS = "bool wants_features, bool wants_prototypes"


def _empty_pixels(features: Tensor) -> Tensor:
    return features.new_empty(
        features.shape[0], features.shape[2], dtype=accumulation_dtype(features)
    )


def _empty_gradients(features: Tensor, prototypes: Tensor, wants: Any) -> tuple[Tensor, Tensor]:
    wants_features, wants_prototypes = wants
    return (
        torch.empty_like(features) if wants_features else features.new_empty(0),
        torch.empty_like(prototypes) if wants_prototypes else prototypes.new_empty(0),
    )


@torch.library.custom_op(
    "protocontrast::contrast",
    mutates_args=(),
    schema=f"({INPUTS}, {SETTINGS}, {BACKEND}) -> (Tensor, Tensor, Tensor)",
)
def contrast_op(
    features: Tensor, labels: Tensor, prototypes: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel."""
    *inputs, backend = rest
    inputs = temperatures.settled(inputs, 3, 5)
    refuse_on_host(FUNCTION, labels, len(prototypes), inputs[-1])
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import contrast as triton_contrast

            return triton_contrast.contrast(features, labels, prototypes, *inputs)
        return LEAVES[backend].contrast(features, labels, prototypes, *inputs)


@contrast_op.register_fake
def _(features: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_pixels(features), _empty_pixels(features), _empty_pixels(features)


@torch.library.custom_op(
    "protocontrast::contrast_backward",
    mutates_args=(),
    schema=f"(Tensor upstream, {INPUTS}, Tensor normaliser, {SETTINGS}, {WANTS}, {BACKEND})"
    " -> (Tensor, Tensor)",
)
def contrast_backward_op(upstream: Tensor, features: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Gradients of features and prototypes; the features are read again."""
    *inputs, backend = rest
    inputs = temperatures.settled(inputs, 5, 8)
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import contrast_backward as triton_backward

            return triton_backward.contrast_backward(upstream, features, *inputs)
        return LEAVES[backend].contrast_backward(upstream, features, *inputs)


@contrast_backward_op.register_fake
def _(upstream: Tensor, features: Tensor, labels: Tensor, prototypes: Tensor, *rest: Any) -> Any:
    return _empty_gradients(features, prototypes, rest[-3:-1])


@torch.library.custom_op(
    "protocontrast::contrast_with_gradient",
    mutates_args=(),
    schema=f"({INPUTS}, {SETTINGS}, {BACKEND}, bool mean, {WANTS}) -> (Tensor, Tensor, Tensor)",
)
def contrast_with_gradient_op(
    features: Tensor, labels: Tensor, prototypes: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The reduced loss and its gradients from one read of the features."""
    *inputs, ignore_index, backend, mean, wants_features, wants_prototypes = rest
    refuse_on_host(FUNCTION, labels, len(prototypes), ignore_index)
    inputs = temperatures.settled(inputs, 3, 5)
    wants = mean, wants_features, wants_prototypes
    with full_precision(features):
        return LEAVES[backend].contrast_with_gradient(
            features, labels, prototypes, *inputs, ignore_index, *wants
        )


@contrast_with_gradient_op.register_fake
def _(features: Tensor, labels: Tensor, prototypes: Tensor, *rest: Any) -> Any:
    loss = features.new_empty((), dtype=accumulation_dtype(features))
    return loss, *_empty_gradients(features, prototypes, rest[-2:])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    features, labels, prototypes, present, class_weight, pixel_weight, annealed = inputs[:7]
    if not prototypes.requires_grad:
        prototypes = kept(prototypes)
    own = kept(present), kept(class_weight), pixel_weight, kept(annealed)
    ctx.save_for_backward(features, labels, prototypes, *own, output[2])
    ctx.settings = inputs[7:]


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    wants_features, wants_prototypes = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
    *settings, backend = ctx.settings
    wants = wants_features, wants_prototypes
    to_features, to_prototypes = once(
        contrast_backward_op, upstream, *ctx.saved_tensors, *settings, *wants, backend
    )
    return (
        to_features if wants_features else None,
        None,
        to_prototypes if wants_prototypes else None,
        *[None] * 9,
    )


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, upstream)


contrast_op.register_autograd(
    _backward, setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output)
)


class _Contrast(torch.autograd.Function):
    """Loss per pixel, differentiable in features and prototypes, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return contrast_op(*inputs)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        only_first_differentiable(ctx, output)
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return (None,) * 12 if upstream is None else _gradients(ctx, upstream)


class _ReducedContrast(torch.autograd.Function):
    """The reduced loss with its gradient written in the forward sweep: the features are read once.

    The gradient is handed over by the first backward. A second one (retain_graph) computes it
    again, since the buffer is then the caller's.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        mean = inputs[-1]
        wants = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        loss, *gradients = contrast_with_gradient_op(*inputs[:-1], mean, *wants)
        features, labels, prototypes, present, class_weight, pixel_weight, annealed = inputs[:7]
        if not wants[1]:
            prototypes = kept(prototypes)
        own = kept(present), kept(class_weight), pixel_weight, kept(annealed)
        ctx.save_for_backward(features, labels, prototypes, *own)
        ctx.settings = inputs[7:]
        ctx.gradients = gradients
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        wants_features, wants_prototypes = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        ready, ctx.gradients = ctx.gradients, None

        def scaled(upstream: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
            pair = ready
            if pair is None:
                _, *pair = contrast_with_gradient_op(*inputs)
            if not is_plain(upstream):  # a batch of upstream gradients does not fit the buffers
                return pair[0] * upstream, pair[1] * upstream
            to_features = eager_contrast.scale_in_place(pair[0], upstream)
            return to_features, eager_contrast.scale_in_place(pair[1], upstream)

        wants = wants_features, wants_prototypes
        to_features, to_prototypes = once(
            scaled, upstream, *ctx.saved_tensors, *ctx.settings, *wants
        )
        return (
            to_features if wants_features else None,
            None,
            to_prototypes if wants_prototypes else None,
            *[None] * 10,
        )


def _naive(inputs: Inputs, settings: Settings, label_smoothing: float) -> tuple[Tensor, Tensor]:
    features, labels, prototypes = inputs[:3]
    if labels.is_floating_point():
        rows = labels.transpose(1, 2).reshape(-1, labels.shape[1])
    else:
        labels = checked_labels(labels, len(prototypes), settings.ignore_index, FUNCTION)
        rows = labels.flatten()
    dtype = accumulation_dtype(features)
    images, channels, pixels = features.shape
    with full_precision(features):
        loss, weight = naive.pixel_prototype_contrast(
            features.transpose(1, 2).reshape(-1, channels).to(dtype),
            rows,
            (prototypes if prototypes.requires_grad else kept(prototypes)).to(dtype),
            kept(inputs.present),
            kept(inputs.class_weight),
            None if inputs.pixel_weight is None else inputs.pixel_weight.flatten(),
            settings.similarity,
            temperatures.private(settings.temperature),
            "floor" if settings.floor else "mask",
            settings.ignore_index,
            label_smoothing,
        )
    return loss.reshape(images, pixels), weight.reshape(images, pixels)


def _smoothed(
    inputs: Inputs, settings: Settings, reduction: str, backend: str, label_smoothing: float
) -> Tensor:
    """The contrast of smoothed targets, which are soft ones; "mean" goes by the targets' own."""
    kind, _, floor, ignore_index = settings
    targets, weight = smoothed(*inputs[:6], kind, floor, ignore_index, label_smoothing, FUNCTION)
    inputs = inputs._replace(labels=targets)
    if reduction != "mean":
        return contrast(inputs, settings, reduction, backend)
    total = contrast(inputs, settings, "sum", backend)
    return torch.where(weight == 0, 0, total / torch.where(weight == 0, 1, weight))


def contrast(
    inputs: Inputs,
    settings: Settings,
    reduction: str,
    backend: str,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss: (B, P) for "none", else () with 0 where no pixel is valid."""
    features, prototypes = inputs.features, inputs.prototypes
    inputs = inputs._replace(
        prototypes=steady(prototypes),
        present=steady(inputs.present),
        class_weight=steady(inputs.class_weight),
    )
    if backend == "naive":
        loss, weight = _naive(inputs, settings, label_smoothing)
        if label_smoothing and reduction == "mean":
            loss = torch.where(weight.sum() == 0, 0, loss)
    elif label_smoothing:
        return _smoothed(inputs, settings, reduction, backend, label_smoothing)
    elif temperatures.is_learnt(settings.temperature):
        losses, masses = learnt_contrast(*inputs[:6], *settings, backend, FUNCTION)  # type: ignore[arg-type]
        loss, weight = losses.sum(dim=1), masses.sum(dim=1)
    else:
        inputs, settings = temperatures.in_inputs(inputs, settings)
        wanted = features.requires_grad or prototypes.requires_grad
        traced = torch.compiler.is_compiling() or transforms_active()
        on_host = features.device.type == "cpu"
        # A float16 gradient written before the upstream factor, a loss scale, would underflow.
        narrow = torch.float16 in (features.dtype, prototypes.dtype)
        one_pass = reduction != "none" and wanted and torch.is_grad_enabled() and on_host
        one_pass = one_pass and backend in LEAVES
        if one_pass and not traced and not narrow:
            return _ReducedContrast.apply(*inputs, *settings, backend, reduction == "mean")
        loss, weight, _ = differentiable(_Contrast, contrast_op, *inputs, *settings, backend)
    return reduced(loss, weight, reduction)
