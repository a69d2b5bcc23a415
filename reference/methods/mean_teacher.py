"""The moving average of a network or a head, which several methods learn from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from reference.methods.settings import TEACHER


@torch.no_grad()
def _blend(
    averages: Sequence[Tensor], latest: Sequence[Tensor], steps: Tensor | int, *, ramp: bool
) -> None:
    kept = min(1 - 1 / (int(steps) + 1), TEACHER) if ramp else TEACHER
    for average, new in zip(averages, latest, strict=True):
        if average.is_floating_point():
            average.lerp_(new, 1 - kept)
        else:
            average.copy_(new)


def mean_teacher(student: nn.Module, *, ramp: bool = True) -> AveragedModel:
    """A copy that `update_parameters` moves after the student, without gradient.

    The t-th call, from 0, keeps m = min(1 - 1 / (t + 1), 0.99) of the old weights: at first the
    teacher is the plain average of the students since the start.

    Args:
        student: what is copied, buffers too.
        ramp: False keeps 0.99 from the first call on.
    """
    teacher = AveragedModel(student, multi_avg_fn=partial(_blend, ramp=ramp), use_buffers=True)
    if not ramp:
        # `AveragedModel` copies whatever comes first.
        teacher.n_averaged += 1
    return teacher.requires_grad_(False)
