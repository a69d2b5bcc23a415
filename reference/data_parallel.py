"""How the parts of all ranks add up to one batch: two ranks train as one does on their union.

DistributedDataParallel averages the gradients of the ranks and the loop those of the parts. A mean
over images or cells of one size needs nothing else; a mean over labelled pixels does, because
parts have different numbers of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import protocontrast as pc
from reference.data.batches import Batch
from reference.data.classes import IGNORE
from reference.method import Losses, Method, Step
from reference.networks.output import Segmenter
from reference.run.ranks import Ranks


class Part(NamedTuple):
    """What is read at once: labelled images, and unlabelled ones for a method that looks at them."""

    source: Batch
    target: Batch | None


class _Whole(nn.Module):
    """Network and method as one module, whose one call a step DistributedDataParallel watches."""

    def __init__(self, network: Segmenter, method: Method) -> None:
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, step: Step) -> Losses:
        losses: Losses = self.method(step)
        return losses


def shared_by(ranks: Ranks, network: Segmenter, method: Method) -> nn.Module:
    """Return what computes the losses of a step, with gradients averaged over the ranks."""
    whole = _Whole(network, method)
    if not ranks.shared:
        return whole
    # Which parameters a step reads depends on the method, and in some on the step.
    return DistributedDataParallel(whole, broadcast_buffers=False, find_unused_parameters=True)


def label_counts(
    parts: Sequence[Part], class_weight: Tensor | None, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Labelled pixels, weighted by class, as a mean over the parts of all ranks: source, static."""

    def weight(labels: Tensor | None) -> Tensor:
        if labels is None:
            return torch.zeros((), dtype=torch.float64, device=ranks.device)
        valid = labels != IGNORE
        if class_weight is None:
            return valid.sum().double()
        return (class_weight.double()[torch.where(valid, labels, 0)] * valid).sum()

    own = torch.stack(
        [
            torch.stack([weight(part.source.labels) for part in parts]).sum(),
            torch.stack(
                [weight(None if part.target is None else part.target.labels) for part in parts]
            ).sum(),
        ]
    )
    total = ranks.total(own) / (ranks.world * len(parts))
    # Without a label anywhere the sum above it is 0, whatever it is divided by.
    source, static = torch.where(total > 0, total, 1.0)
    return source, static


def contrast_shares(
    bicl: pc.BiCL, pulled: pc.BiCLOutput, step: Step
) -> tuple[Tensor | float, Tensor | float]:
    """What this rank's means of both contrasts weigh: by the pixels that they are over.

    Prototypes of the batch belong to one rank, so there the ranks count alike. So do the parts of
    a rank, each of which moves the bank.

    Args:
        bicl: whose banks say which classes take part.
        pulled: its output.
        step: of this part.
    """
    ranks = step.ranks
    if not ranks.shared or bicl.prototypes == "batch":
        return 1.0, 1.0
    both = bicl.source_bank.present & bicl.target_bank.present
    static = step.target_batch.labels
    own = torch.stack(
        [
            _contrasted(pulled.target_labels, static, both),
            _pixels(step.source_labels, both),
        ]
    )
    to_source, to_target = (own * ranks.world / ranks.total(own).clamp(min=1)).float()
    return to_source, to_target


def _pixels(labels: Tensor, classes: Tensor) -> Tensor:
    valid = labels != IGNORE
    return (valid & classes[torch.where(valid, labels, 0)]).sum().double()


def _contrasted(grid: Tensor, static: Tensor | None, classes: Tensor) -> Tensor:
    """Pixels of these classes that the target's contrast is a mean over.

    The given labels of a cell, or all of its pixels where it has none; a cell that is labelled by
    a pixel beyond its edge counts for that label.
    """
    if static is None or static.shape == grid.shape:
        return _pixels(grid, classes)
    size: Any = grid.shape[1:]
    given = pc.labels_to_grid(static, size, mode="counts", num_classes=len(classes))
    every = torch.zeros_like(static[:1])
    pixels = pc.labels_to_grid(every, size, mode="counts", num_classes=1)[:, 0].clamp(min=1)
    valid = (grid != IGNORE) & (given.sum(dim=1) == 0)
    moved = valid & classes[torch.where(valid, grid, 0)]
    own = (given.double().sum(dim=(0, 2, 3)) * classes).sum()
    return own + (moved * pixels).double().sum()
