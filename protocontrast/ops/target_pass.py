"""The target's part of a step as one operator: labels, class sums, and losses with a gradient."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.eager import target_pass as eager_target_pass
from protocontrast.eager.tiles import accumulation_dtype
from protocontrast.ops import temperature as temperatures
from protocontrast.ops.backend import full_precision, is_plain, transforms_active
from protocontrast.ops.contrast import contrast_backward_op
from protocontrast.ops.gradient import differentiable, kept, once, only_first_differentiable, steady
from protocontrast.ops.labels import checked_labels, refuse_on_host
from protocontrast.ops.learnt import learnt_contrast

FUNCTION = "target_pass"


class Inputs(NamedTuple):
    """Features (B, D, P), static labels (B, P), soft targets (B, C, P) or None: the fused labels;
    (P,) masses of transferred labels where the targets have none; prototypes (C, D), those of the
    transfer; (C,).
    """

    features: Tensor
    static: Tensor | None
    targets: Tensor | None
    filling: Tensor | None
    prototypes: Tensor
    nearest: Tensor | None
    present: Tensor
    counted: Tensor | None
    annealed: Tensor | None = None


class Settings(NamedTuple):
    """What is not a tensor."""

    threshold: float
    measure: str
    temperature: float | Tensor
    floor: bool
    normalize: bool
    ignore_index: int
    transfer: bool
    wants_sums: bool


class Passed(NamedTuple):
    """What one read gives: losses (C,), sums (C, D), counts (C,); labels, measure (B, P); the
    soft targets (B, C, P) that the losses were taken of.
    """

    losses: Tensor
    sums: Tensor
    counts: Tensor
    labels: Tensor
    measure: Tensor
    targets: Tensor | None


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op(
    "protocontrast::target_pass",
    mutates_args=(),
    schema="(Tensor features, Tensor? static, Tensor? targets, Tensor? filling,"
    " Tensor prototypes, Tensor? nearest, Tensor present, Tensor? counted,"
    f" {temperatures.SCHEMA}, float threshold, str measure, float temperature,"
    " bool floor, bool normalize, int ignore_index, bool transfer, bool wants_sums,"
    " bool wants_gradient, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def target_pass_op(
    features: Tensor,
    static: Tensor | None,
    targets: Tensor | None,
    filling: Tensor | None,
    prototypes: Tensor,
    *rest: Any,
) -> Outputs:
    """Losses, sums, counts; labels, measure, log-sum-exp (B, P); filled targets; a gradient.

    The gradient, of the summed loss, is written by the eager backend alone: elsewhere the features
    are read again. Targets are filled where there are any and labels are transferred.
    """
    *inputs, backend = rest
    inputs = temperatures.settled(inputs, 3, 6)
    if static is not None:
        refuse_on_host(FUNCTION, static, len(prototypes), inputs[-4])
    with full_precision(features):
        if backend == "triton":
            from protocontrast.kernels import target_pass as triton_target_pass

            found = triton_target_pass.target_pass(
                features, static, targets, filling, prototypes, *inputs[:-1]
            )
            return *found, features.new_empty(0)
        return eager_target_pass.target_pass(
            features, static, targets, filling, prototypes, *inputs
        )


@target_pass_op.register_fake
def _(
    features: Tensor,
    static: Tensor | None,
    targets: Tensor | None,
    filling: Tensor | None,
    prototypes: Tensor,
    *rest: Any,
) -> Outputs:
    dtype = accumulation_dtype(features)
    pixels = features.shape[0], features.shape[2]
    classes, channels = prototypes.shape
    return (
        features.new_empty(classes, dtype=dtype),
        features.new_empty((classes, channels), dtype=dtype),
        features.new_empty(classes, dtype=dtype),
        features.new_empty(pixels, dtype=torch.int64),
        features.new_empty(pixels, dtype=dtype),
        features.new_empty(pixels, dtype=dtype),
        features.new_empty(0)
        if targets is None or not rest[-4]
        else targets.new_empty(targets.shape),
        torch.empty_like(features) if rest[-2:] == (True, "eager") else features.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    features, _, targets, _, prototypes, _, present, counted, annealed = inputs[:9]
    transfer = inputs[15]
    pulled_to = output[3] if targets is None else output[6] if transfer else targets
    own = kept(prototypes), kept(present), kept(counted), kept(annealed)
    ctx.save_for_backward(features, pulled_to, *own, output[5])
    temperature, floor, _, ignore_index = inputs[11:15]
    ctx.settings = temperature, floor, ignore_index, inputs[-1]


def _read_again(
    upstream: Tensor,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor,
    counted: Tensor | None,
    annealed: Tensor | None,
    normaliser: Tensor,
    temperature: float,
    floor: bool,
    ignore_index: int,
    backend: str,
) -> Tensor:
    """Gradient of the features from that of the losses (C,): a class weight of the contrast."""
    used = torch.zeros_like(present) if counted is None else counted & present
    share = torch.where(used, upstream, 0)
    everywhere = torch.ones_like(normaliser[:, :1]).expand_as(normaliser)
    gradient, _ = contrast_backward_op(
        everywhere, features, labels, prototypes, present, share, None, annealed, normaliser,
        "cosine", temperature, floor, ignore_index, True, False, backend,
    )  # fmt: skip
    return gradient


def _gradients(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    gradient = once(_read_again, upstream, *ctx.saved_tensors, *ctx.settings)
    return gradient, *[None] * 18


target_pass_op.register_autograd(
    lambda ctx, *upstream: _gradients(ctx, upstream[0]),
    setup_context=lambda ctx, inputs, output: _save(ctx, inputs, output),
)


class _TargetPass(torch.autograd.Function):
    """The operator, its losses differentiable in the features, transparent to torch.func."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Outputs:
        return target_pass_op(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
        only_first_differentiable(ctx, output)
        _save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        return (None,) * 19 if upstream is None else _gradients(ctx, upstream)


class _OneRead(torch.autograd.Function):
    """The same with the gradient of the summed loss written in the forward sweep.

    A gradient is linear in the losses' weights, so the first backward scales it where they are
    equal in all classes that occur, or where each pixel has one class. Otherwise, and in a second
    backward, the features are read again.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = target_pass_op(*inputs)
        only_first_differentiable(ctx, output[:7])
        _save(ctx, inputs, output)
        soft = inputs[2] if inputs[2] is None or not inputs[15] else output[6]
        ctx.occurs = (output[2] if soft is None else soft.sum(dim=(0, 2))) > 0
        # As a result it would be met in backward by zeros of its size.
        ctx.gradient = output[7]
        return output[:7]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return (None,) * 19
        ready, ctx.gradient = ctx.gradient, None
        occurs = ctx.occurs

        def scaled(upstream: Tensor, *inputs: Any) -> Tensor:
            found = None
            if ready is not None and is_plain(upstream):
                _, labels, _, present, counted, *_, ignore_index, _ = inputs
                used = occurs & present & counted
                found = eager_target_pass.scaled(ready, upstream, used, labels, ignore_index)
            return _read_again(upstream, *inputs) if found is None else found

        gradient = once(scaled, upstream, *ctx.saved_tensors, *ctx.settings)
        return gradient, *[None] * 18


def _naive(inputs: Inputs, settings: Settings) -> Passed:
    features, static, targets, filling, prototypes, nearest, present, counted = inputs[:8]
    dtype = accumulation_dtype(features)
    images, channels, pixels = features.shape
    if static is not None:
        static = checked_labels(static, len(prototypes), settings.ignore_index, FUNCTION).flatten()
    prototypes = kept(prototypes).to(dtype)
    with full_precision(features):
        labels, measure, losses, sums, counts, targets = naive.target_pass(
            features.transpose(1, 2).reshape(-1, channels).to(dtype),
            static,
            None if targets is None else targets.transpose(1, 2).reshape(-1, len(prototypes)),
            None if filling is None else filling.repeat(images),
            prototypes,
            prototypes if nearest is None else nearest.to(dtype),
            kept(present),
            torch.zeros_like(present) if counted is None else kept(counted),
            torch.full_like(prototypes[:, 0], settings.threshold),
            settings.measure,
            temperatures.private(settings.temperature),
            "floor" if settings.floor else "mask",
            settings.normalize,
            settings.ignore_index,
            settings.transfer,
        )
    if not settings.wants_sums:
        sums = torch.zeros_like(sums)
    labels, measure = labels.reshape(images, pixels), measure.detach().reshape(images, pixels)
    if targets is not None:
        targets = targets.reshape(images, pixels, len(prototypes)).transpose(1, 2)
    return Passed(losses, sums.detach(), counts.detach(), labels, measure, targets)


def _learnt(inputs: Inputs, settings: Settings, backend: str) -> Passed:
    """The same with a gradient to the temperature: losses of a pass of their own."""
    features, _, _, _, prototypes, _, present, counted = inputs[:8]
    rest = inputs._replace(features=features.detach(), counted=None)
    temperature = settings.temperature
    found = target_pass(rest, settings._replace(temperature=temperature.detach()), backend)  # type: ignore[union-attr]
    if counted is None:
        return found
    losses, _ = learnt_contrast(
        features, found.labels if found.targets is None else found.targets, prototypes, present,
        counted & present, None, "cosine", temperature, settings.floor,  # type: ignore[arg-type]
        settings.ignore_index, backend, FUNCTION,
    )  # fmt: skip
    return found._replace(losses=losses.sum(dim=(0, 2)))


def target_pass(inputs: Inputs, settings: Settings, backend: str, even: bool = True) -> Passed:
    """Losses are differentiable in the features, nothing else is; sums are 0 where not wanted.

    `even`: whether they will have one weight; else a gradient of soft targets is not written ahead.
    """
    inputs = inputs._replace(
        prototypes=steady(inputs.prototypes),
        nearest=steady(inputs.nearest),
        present=steady(inputs.present),
        counted=steady(inputs.counted),
    )
    if backend == "naive":
        return _naive(inputs, settings)
    if temperatures.is_learnt(settings.temperature):
        return _learnt(inputs, settings, backend)
    inputs, settings = temperatures.in_inputs(inputs, settings)
    features = inputs.features
    traced = torch.compiler.is_compiling() or transforms_active()
    on_host = features.device.type == "cpu" and backend == "eager"
    wanted = features.requires_grad and torch.is_grad_enabled() and inputs.counted is not None
    # A float16 gradient has too short a range for a factor that is not known yet.
    ahead = (even or inputs.targets is None) and features.dtype != torch.float16
    if wanted and on_host and not traced and ahead:
        found = _OneRead.apply(*inputs, *settings, True, backend)
    else:
        found = differentiable(_TargetPass, target_pass_op, *inputs, *settings, False, backend)
    losses, sums, counts, labels, measure, _, filled = found[:7]
    targets = filled if inputs.targets is not None and settings.transfer else inputs.targets
    return Passed(losses, sums, counts, labels, measure, targets)
