"""A step of `BiCL` in one row of launches, none of them torch's: (M13)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import ClassSumsCall, ContrastCall, StepCall, TargetPassCall
from protocontrast.kernels.bank_step import move_source, move_target
from protocontrast.kernels.class_prototypes import class_sums
from protocontrast.kernels.contrast import contrast
from protocontrast.kernels.contrast_backward import contrast_backward
from protocontrast.kernels.step_end import Factors, Seen, Told, end_step, send_step_back
from protocontrast.kernels.target_pass import target_pass


class Pixelwise(NamedTuple):
    """Targets, (B, P) or (B, C, P), and log-sum-exps (B, P) of source pixels and target pixels."""

    source_targets: Tensor
    target_targets: Tensor
    source_lse: Tensor
    target_lse: Tensor


class Classwise(NamedTuple):
    """Matrix and table of what source and target pixels met, and the factors of their losses."""

    source: Sequence[Tensor]
    target: Sequence[Tensor]
    factors: Factors


def _over_ranks(call: StepCall, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Partial sums and counts, or means and counts of all ranks; and the rank's own pixels (C,)."""
    if call.over_ranks is None:
        return sums, counts, counts
    total, own = sums.sum(dim=0), counts.sum(dim=0)
    mean, count = call.over_ranks(total / torch.where(own == 0, 1, own)[:, None], own)
    return mean[None], count[None], own


def _contrast_call(call: StepCall, features: Tensor, targets: Tensor) -> ContrastCall:
    """Of prototypes that have been made ready."""
    rows = call.source_bank[0]
    return ContrastCall(
        features, targets, rows, None, None, None,
        "cosine", call.temperature, call.keep_absent, call.ignore_index,
    )  # fmt: skip


def bicl_step(call: StepCall) -> tuple[Told, Tensor, Pixelwise, Classwise]:
    """The step, after which banks and bias hold what follows from it, and its fused labels (B, P).

    The last two are what its gradients need.
    """
    source, classes, ranks = call.source, call.source_bank[0].shape[0], call.over_ranks is not None
    unit = call.normalize == "features"
    members = ClassSumsCall(
        source.features, source.labels, None, classes, unit, False, call.ignore_index
    )
    sums, counts, own = _over_ranks(call, *class_sums(members, in_parts=True))
    of_source = move_source(call, sums, counts, ranks)
    present = of_source.bank.present
    nearest = of_source.ready.calibrated
    to_pass = TargetPassCall(
        call.target, call.static, call.targets, call.filling, of_source.bank.rows, nearest, present,
        present, call.threshold, call.measure, call.temperature, call.keep_absent, unit,
        call.ignore_index, True, True,
    )  # fmt: skip
    ready = (*of_source.ready.own, *of_source.ready.near)
    lost, sums, counts, labels, _, lse, filled, _ = target_pass(to_pass, *ready, in_parts=True)
    targets = to_pass.contrasted(labels, filled)
    sums, counts, found = _over_ranks(call, sums, counts)
    if not ranks:
        own = of_source.ready.pixels
    soft = source.targets.is_floating_point() and call.whole_class
    weighing = source.targets.sum((0, 2), dtype=lost.dtype) if soft else own
    of_target = move_target(call, sums, counts, ranks, of_source, weighing)
    if not ranks:
        found = of_target.ready.pixels
    against_target = _contrast_call(call, source.features, source.targets)
    statistics = contrast(against_target, *of_target.ready.own)
    mass = found if call.targets is None else targets.sum((0, 2), dtype=lost.dtype)
    told, factors = end_step(
        call,
        statistics,
        (lost, mass),
        Seen(own, found, max(labels.numel(), 1)),
        of_source,
        of_target,
    )
    pixelwise = Pixelwise(source.targets, targets, statistics.lse, lse)
    return told, labels, pixelwise, Classwise(of_target.ready.own, of_source.ready.own, factors)


def bicl_step_backward(
    upstream: Sequence[Tensor | None],
    call: StepCall,
    wants: Sequence[bool],
    pixelwise: Sequence[Tensor],
    classwise: Classwise,
) -> list[Tensor | None]:
    """Gradients of source and target features from those of the three losses, and `Pixelwise`."""
    lse = pixelwise[2:]
    back, table = send_step_back(call, upstream, classwise.target[1], classwise.factors, lse)
    maps, targets = (call.source.features, call.target), pixelwise[:2]
    ready = classwise.source, (classwise.target[0], table)
    found: list[Tensor | None] = [None, None]
    for place in (0, 1):
        if wants[place]:
            contrasted = _contrast_call(call, maps[place], targets[place])
            found[place], _ = contrast_backward(
                back[place], contrasted, (True, False), lse[place], *ready[place]
            )
    return found
