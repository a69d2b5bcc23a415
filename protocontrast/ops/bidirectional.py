"""Both directions against the batch's own class means, as one node of autograd on the CPU.

Composed of class sums and contrasts, each domain's gradient would be two maps that are added; here
the part through the means goes into the contrast's own map.
"""

from typing import Any

import torch
from torch import Tensor

from protocontrast.calls import BidirectionalCall, Domain, accumulation_dtype
from protocontrast.eager import bidirectional as eager_bidirectional
from protocontrast.native import bidirectional as native_bidirectional
from protocontrast.ops.backend import choose, full_precision, is_plain, transforms_active
from protocontrast.ops.class_prototypes import FUNCTION
from protocontrast.ops.gradient import first_order_only
from protocontrast.ops.labels import refuse_on_host

MAPS = len(Domain._fields)
SWEEPS: dict[str, Any] = {"eager": eager_bidirectional, "native": native_bidirectional}


def _read(inputs: tuple[Any, ...]) -> BidirectionalCall:
    """The call whose domains are flat, as autograd needs its tensors."""
    source, target = Domain(*inputs[:MAPS]), Domain(*inputs[MAPS : 2 * MAPS])
    return BidirectionalCall(source, target, *inputs[2 * MAPS :])


def _directions(
    call: BidirectionalCall, wants: tuple[bool, bool], backend: str
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    with full_precision(call.source.features):
        return SWEEPS[backend].bidirectional_with_gradient(call, wants)


def _wants(ctx: Any) -> tuple[bool, bool]:
    return ctx.needs_input_grad[0], ctx.needs_input_grad[MAPS]


class _Bidirectional(torch.autograd.Function):
    """The two losses, with their gradients written in the forward sweeps.

    The gradients are handed over by the first backward. A second one (retain_graph) computes them
    again, since the buffers are then the caller's.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        ctx.settings, ctx.backend = inputs[2 * MAPS : -1], inputs[-1]
        losses, ctx.written = _directions(_read(inputs[:-1]), _wants(ctx), ctx.backend)
        ctx.save_for_backward(*inputs[: 2 * MAPS])
        return losses[0], losses[1]

    @staticmethod
    def backward(ctx: Any, *grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        wants, settings, backend = _wants(ctx), ctx.settings, ctx.backend
        ready, ctx.written = ctx.written, None

        def scaled(source: Tensor, target: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            call = _read((*tensors, *settings))
            written = _directions(call, wants, backend)[1] if ready is None else ready
            found = []
            factors = (source, target), (target, source)
            sides = zip(written, (call.source, call.target), factors, wants, strict=True)
            for one, domain, pair, wanted in sides:
                index = domain.labels, call.ignore_index
                found.append(_scaled(one, *index, *pair, backend) if wanted else one[0])
            return tuple(found)

        found = first_order_only(scaled, *grad_losses, *ctx.saved_tensors)
        gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for place, gradient, wanted in zip((0, MAPS), found, wants, strict=True):
            gradients[place] = gradient if wanted else None
        return tuple(gradients)


def _scaled(
    written: tuple[Tensor, Tensor],
    labels: Tensor,
    ignore_index: int,
    factor: Tensor,
    other: Tensor,
    backend: str,
) -> Tensor:
    """A domain's gradient from that of the loss of its pixels and of the other direction."""
    own, share = written
    groups, sweeps = len(share), SWEEPS[backend]
    with full_precision(labels):
        if is_plain(factor) and is_plain(other):
            factors = float(factor) / groups, float(other) / groups
            found = sweeps.add_shares(written, labels, ignore_index, *factors)
        else:
            # A batch of gradients does not fit the buffers.
            empty = torch.zeros_like(own), share
            through_means = sweeps.add_shares(empty, labels, ignore_index, 1.0, 1.0)
            found = (own * factor + through_means * other) / groups
    return found


def served_by(source: Tensor, target: Tensor, backend: str) -> str | None:
    """Whose `bidirectional` serves these features (B, D, P); None where they are composed."""
    both = source, target
    wanted = torch.is_grad_enabled() and any(one.requires_grad for one in both)
    on_host = all(one.device.type == "cpu" for one in both)
    # A float16 gradient written before it is scaled, by a loss scale, would underflow.
    half = any(one.dtype == torch.float16 for one in both)
    # A subclass, such as a fake tensor, has no values to check or to write a gradient from.
    plain = all(type(one) in (Tensor, torch.nn.Parameter) for one in both)
    traced = torch.compiler.is_compiling() or transforms_active() or not plain
    if not wanted or not on_host or half or traced:
        return None
    # C reads both domains in one precision.
    alike = accumulation_dtype(source) == accumulation_dtype(target)
    # The means, of which it is composed otherwise, are there in every backend.
    chosen = choose(backend, "class_prototypes", source)
    return chosen if chosen == "eager" or (chosen == "native" and alike) else None


def bidirectional(call: BidirectionalCall, backend: str) -> tuple[Tensor, Tensor]:
    """The losses of moving source and target pixels, each ()."""
    for domain in (call.source, call.target):
        refuse_on_host(FUNCTION, domain.labels, call.num_classes, call.ignore_index)
    return _Bidirectional.apply(*call.source, *call.target, *call[2:], backend)
