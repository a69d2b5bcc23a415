"""What each rank's mean over contrasted pixels weighs, so that two ranks train as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Step


def contrast_shares(
    bicl: pc.BiCL, pulled: pc.BiCLOutput, step: Step
) -> tuple[Tensor | float, Tensor | float]:
    """What this rank's means of both contrasts weigh: by the pixels that they are over.

    Prototypes of the batch belong to one rank, so there the ranks count alike; balanced by class,
    the losses have these weights already. The parts of a rank count alike, too, each of which moves
    the bank.
    """
    ranks = step.ranks
    if not ranks.shared or bicl.prototypes == "batch" or bicl.balance == "class":
        return 1.0, 1.0
    both = bicl.source_bank.present & bicl.target_bank.present
    target = _contrasted(pulled.target_labels, step.target_batch.labels, both)
    own = torch.stack([target, _pixels(step.source_labels, both)])
    to_source, to_target = (own * ranks.world / ranks.total(own).clamp(min=1)).float()
    return to_source, to_target


def _pixels(labels: Tensor, classes: Tensor) -> Tensor:
    valid = labels != IGNORE
    return (valid & classes[torch.where(valid, labels, 0)]).sum().double()


def _contrasted(grid: Tensor, static: Tensor | None, classes: Tensor) -> Tensor:
    """Pixels of these classes that the target's contrast is a mean over.

    The given labels of a cell, or all of its pixels where it has none.
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
