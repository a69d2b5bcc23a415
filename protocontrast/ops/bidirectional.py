"""Both directions against the batch's own class means, as one node of autograd on the CPU.

Composed of class sums and contrasts, each domain's gradient would be two maps that are added; here
the part through the means goes into the contrast's own map.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from protocontrast.eager import bidirectional as eager_bidirectional
from protocontrast.eager.bidirectional import Domain, Written
from protocontrast.ops.backend import full_precision, is_plain, transforms_active
from protocontrast.ops.class_prototypes import FUNCTION
from protocontrast.ops.gradient import once
from protocontrast.ops.labels import refuse_on_host

__all__ = ["Domain", "Settings", "applies", "bidirectional"]


class Settings(NamedTuple):
    """What is not a tensor; `whole_class` as in eager."""

    num_classes: int
    temperature: float
    floor: bool
    ignore_index: int
    pairwise: bool
    whole_class: int


def _directions(*inputs: Any) -> tuple[list[Tensor], list[Written]]:
    source, target = Domain(*inputs[:3]), Domain(*inputs[3:6])
    with full_precision(source.features):
        return eager_bidirectional.bidirectional_with_gradient(source, target, *inputs[6:])


class _Bidirectional(torch.autograd.Function):
    """The two losses, with their gradients written in the forward sweeps.

    The gradients are handed over by the first backward. A second one (retain_graph) computes them
    again, since the buffers are then the caller's.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        losses, ctx.written = _directions(*inputs, ctx.needs_input_grad[0], ctx.needs_input_grad[3])
        ctx.save_for_backward(*inputs[:6])
        ctx.settings = Settings(*inputs[6:])
        return losses[0], losses[1]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        wants = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        settings: Settings = ctx.settings
        ready, ctx.written = ctx.written, None

        def scaled(source: Tensor, target: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            written = ready
            if written is None:
                _, written = _directions(*tensors, *settings, *wants)
            labels = tensors[1], tensors[4]
            factors = (source, target), (target, source)
            return tuple(
                _scaled(one, y, settings, *pair) if wanted else one.own
                for one, y, pair, wanted in zip(written, labels, factors, wants, strict=True)
            )

        found = once(scaled, *upstream, *ctx.saved_tensors)
        gradients = [one if wanted else None for one, wanted in zip(found, wants, strict=True)]
        return gradients[0], None, None, gradients[1], *[None] * (2 + len(settings))


def _scaled(
    written: Written, labels: Tensor, settings: Settings, upstream: Tensor, other: Tensor
) -> Tensor:
    """A domain's gradient from that of the loss of its pixels and of the other direction."""
    groups = len(written.share)
    ignore_index = settings.ignore_index
    with full_precision(labels):
        if is_plain(upstream) and is_plain(other):
            factors = float(upstream) / groups, float(other) / groups
            return eager_bidirectional.add_shares(written, labels, ignore_index, *factors)
        # A batch of upstream gradients does not fit the buffers.
        empty = written._replace(own=torch.zeros_like(written.own))
        through_means = eager_bidirectional.add_shares(empty, labels, ignore_index, 1.0, 1.0)
        return (written.own * upstream + through_means * other) / groups


def applies(source: Tensor, target: Tensor, backend: str) -> bool:
    """Whether `bidirectional` serves these features (B, D, P); otherwise they are composed."""
    both = source, target
    wanted = torch.is_grad_enabled() and any(one.requires_grad for one in both)
    on_host = all(one.device.type == "cpu" for one in both)
    # A float16 gradient written before the upstream factor, a loss scale, would underflow.
    narrow = any(one.dtype == torch.float16 for one in both)
    # A subclass, such as a fake tensor, has no values to check or to write a gradient from.
    plain = all(type(one) in (Tensor, torch.nn.Parameter) for one in both)
    traced = torch.compiler.is_compiling() or transforms_active() or not plain
    return backend in ("auto", "eager") and wanted and on_host and not narrow and not traced


def bidirectional(source: Domain, target: Domain, settings: Settings) -> tuple[Tensor, Tensor]:
    """The losses of moving source and target pixels, each ()."""
    for domain in (source, target):
        refuse_on_host(FUNCTION, domain.labels, settings.num_classes, settings.ignore_index)
    return _Bidirectional.apply(*source, *target, *settings)
