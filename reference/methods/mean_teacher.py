"""The moving average of a network or a head, which several methods learn from."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reference.methods.settings import TEACHER


def mean_teacher(student: nn.Module) -> AveragedModel:
    """A copy that `update_parameters` moves after the student, without gradient."""
    average = get_ema_multi_avg_fn(TEACHER)
    return AveragedModel(student, multi_avg_fn=average, use_buffers=True).requires_grad_(False)
