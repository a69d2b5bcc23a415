"""The target's part of a step as one operator: labels, class sums, and losses with a gradient."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import TargetPassCall, accumulation_dtype
from protocontrast.eager import contrast as eager_contrast
from protocontrast.eager import target_pass as eager_target_pass
from protocontrast.native import contrast as native_contrast
from protocontrast.native import target_pass as native_target_pass
from protocontrast.ops.backend import is_plain, unwatched
from protocontrast.ops.gradient import first_order_only, is_learnt, only_first_differentiable
from protocontrast.ops.labels import refuse_on_host
from protocontrast.ops.masses import learnt_contrast
from protocontrast.ops.operator import Implementation, Operator, empty_pixels
from protocontrast.ops.rows import in_rows, per_image

FUNCTION = "target_pass"


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


def _check(call: TargetPassCall) -> None:
    if call.static is not None:
        refuse_on_host(FUNCTION, call.static, call.prototypes.shape[0], call.ignore_index)


def _empty(call: TargetPassCall) -> list[Tensor]:
    features, targets = call.features, call.targets
    classes, channels = call.prototypes.shape
    shapes = (classes,), (classes, channels), (classes,)
    measure, nothing = empty_pixels(features), features.new_empty(0)
    return [
        *(features.new_empty(shape, dtype=accumulation_dtype(features)) for shape in shapes),
        torch.empty_like(measure, dtype=torch.int64),
        measure,
        torch.empty_like(measure),
        nothing if targets is None or not call.transfer else targets.new_empty(targets.shape),
        torch.empty_like(features) if call.wants_gradient else nothing.clone(),
    ]


def _naive(call: TargetPassCall) -> Passed:
    features = call.features
    rows = in_rows(call, FUNCTION, call.prototypes.shape[0])
    losses, sums, counts, labels, measure, targets = naive.target_pass(rows)
    sums = sums.detach() if call.wants_sums else torch.zeros_like(sums)
    labels, measure = per_image(labels, features), per_image(measure.detach(), features)
    targets = None if targets is None else per_image(targets, features)
    return Passed(losses, sums, counts.detach(), labels, measure, targets)


def _backward_by(contrast_backward: Callable[..., Sequence[Tensor]]) -> Callable[..., Tensor]:
    """By the gradient of the contrast, for which that of the losses (C,) is a class weight."""

    def target_pass_backward(
        grad_output: Tensor, call: TargetPassCall, wants: tuple[bool], *saved: Tensor
    ) -> Tensor:
        labels, lse, filled = saved
        contrast = call.of_losses(call.contrasted(labels, filled), grad_output)
        everywhere = torch.ones_like(lse[:, :1]).expand_as(lse)
        return contrast_backward(everywhere, contrast, (True, False), lse)[0]

    return target_pass_backward


def _triton() -> Implementation:
    from protocontrast.kernels import target_pass
    from protocontrast.kernels import target_pass_backward as backward

    return Implementation(
        target_pass.target_pass,
        backward.target_pass_backward,
        ready=backward.ready_for_target_pass,
    )


OPERATOR = Operator(
    "target_pass", TargetPassCall, _empty, naive=_naive, triton=_triton,
    eager=Implementation(
        eager_target_pass.target_pass, _backward_by(eager_contrast.contrast_backward)
    ),
    native=Implementation(
        native_target_pass.target_pass, _backward_by(native_contrast.contrast_backward)
    ),
    check=_check, results=8, saved=[3, 5, 6], annealed=True, differentiable=["features"],
    private=["prototypes", "nearest", "present", "counted"],
    unread=["static", "filling", "nearest"],
    ready=["matrix", "table", "near_matrix", "near_table"],
)  # fmt: skip


SWEEPS: dict[str, Any] = {"eager": eager_target_pass, "native": native_target_pass}


class _OneRead(torch.autograd.Function):
    """The same with the gradient of the summed loss written in the forward sweep.

    A gradient is linear in the losses' weights, so the first backward scales it where they are
    equal in all classes that occur, or where each pixel has one class. Otherwise, and in a second
    backward, the features are read again.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        run = OPERATOR.run if unwatched(inputs[0]) else OPERATOR.op
        *output, gradient = run(*inputs)
        only_first_differentiable(ctx, tuple(output))
        OPERATOR.save(ctx, inputs, output)
        call, (counts, labels, filled) = OPERATOR.call_of(inputs), (output[2], output[3], output[6])
        soft = None if call.targets is None else call.contrasted(labels, filled)
        ctx.occurs = (counts if soft is None else soft.sum(dim=(0, 2))) > 0
        # As a result it would be met in backward by zeros of its size.
        ctx.gradient = gradient
        return tuple(output)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * len(ctx.needs_input_grad)
        ready, ctx.gradient = ctx.gradient, None
        occurs = ctx.occurs

        def scaled(grad_output: Tensor, *inputs: Any) -> Tensor:
            found = None
            if ready is not None and is_plain(grad_output):
                call, (labels, _, filled, *_) = OPERATOR.saved_call(inputs)
                targets, used = call.contrasted(labels, filled), occurs & call.used()
                given = grad_output, used, targets, call.ignore_index
                found = SWEEPS[ctx.settings[-1]].scaled(ready, *given)
            return OPERATOR.backward(grad_output, *inputs) if found is None else found

        given = OPERATOR.given_back(ctx)
        return OPERATOR.placed(ctx, first_order_only(scaled, grad_output, *given))


def _learnt(call: TargetPassCall, backend: str) -> Passed:
    """The same with a gradient to the temperature: losses of a pass of their own."""
    temperature = call.temperature
    rest = call._replace(
        features=call.features.detach(),
        counted=None,
        temperature=temperature.detach(),  # type: ignore[union-attr]
    )
    found = target_pass(rest, backend)
    if call.counted is None:
        return found
    targets = found.labels if found.targets is None else found.targets
    losses, _ = learnt_contrast(call.of_losses(targets), backend, FUNCTION)
    return found._replace(losses=losses.sum(dim=(0, 2)))


def target_pass(call: TargetPassCall, backend: str, even: bool = True) -> Passed:
    """Losses are differentiable in the features, nothing else is; sums are 0 where not wanted.

    `even`: whether they will have one weight; else a gradient of soft targets is not written ahead.
    """
    if backend == "naive":
        return OPERATOR(call, backend)
    if is_learnt(call.temperature):
        return _learnt(OPERATOR.snapshot(call), backend)
    ahead = call.counted is not None and (even or call.targets is None)
    if ahead and OPERATOR.in_one_sweep(call, "sum", backend):
        inputs = OPERATOR.flat(call._replace(wants_gradient=True))
        found = _OneRead.apply(*inputs, backend)
    else:
        found = OPERATOR(call, backend)
    losses, sums, counts, labels, measure, _, filled = found[:7]
    filled = filled if call.targets is not None and call.transfer else call.targets
    return Passed(losses, sums, counts, labels, measure, filled)
