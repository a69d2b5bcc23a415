"""Copies of the network that are not trained, and what is read off whole images.

`MeanTeacher` follows the network slowly; one that is never moved remembers how the network began.
Both answer as they will at test time, whatever the mode of the method around them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import protocontrast as pc
from reference.data.batches import Batch
from reference.data.classes import IGNORE
from reference.networks.output import Output

MOMENTUM: Final = 0.99
"""Weight of a teacher's old weights per step; DACS released 0.99 of 250 000 steps, those built on
it 0.999 of 40 000. Own for them: at the same share of a run of 600 steps they would forget within
15."""
CONFIDENT: Final = 0.968
"""Probability from which a teacher's label counts as sure; released by DACS."""


@torch.no_grad()
def _blend(
    averages: Sequence[Tensor], latest: Sequence[Tensor], steps: Tensor | int, *, ramp: bool
) -> None:
    old = min(1 - 1 / (int(steps) + 1), MOMENTUM) if ramp else MOMENTUM
    for average, new in zip(averages, latest, strict=True):
        if average.is_floating_point():
            average.lerp_(new, 1 - old)
        else:
            average.copy_(new)


class MeanTeacher(AveragedModel):
    """A copy that `update_parameters` moves after the student, without gradient.

    The t-th call, from 0, keeps m = min(1 - 1 / (t + 1), 0.99) of the old weights: at first the
    teacher is the plain average of the students since the start. It stays in evaluation mode.

    Args:
        student: what is copied, buffers too; later calls may come from another of its kind.
        ramp: False keeps 0.99 from the first call on.
    """

    def __init__(self, student: nn.Module, *, ramp: bool = True) -> None:
        super().__init__(student, multi_avg_fn=partial(_blend, ramp=ramp), use_buffers=True)
        if not ramp:
            # `AveragedModel` copies whatever comes first.
            self.n_averaged += 1
        self.requires_grad_(False).train()

    def train(self, mode: bool = True) -> "MeanTeacher":
        return super().train(False)


def agreeing(labels: Tensor, logits: Tensor) -> Tensor:
    """Keep a label (B, h, w) where the class that logits (B, C, h, w) predict is the same."""
    return torch.where(logits.argmax(dim=1) == labels, labels, IGNORE)


def grid_labels(batch: Batch, beside: Tensor) -> Tensor:
    """Labels of whole images on the grid of maps (B, D, h, w): (B, h, w)."""
    if batch.labels is None:
        raise ValueError("methods: expected source images with labels, got None.")
    return pc.labels_to_grid(batch.labels, (beside.shape[-2], beside.shape[-1]))


def image_means(output: Output) -> pc.ClassPrototypes:
    """Means of features by predicted class, of each image, (B, C, D)."""
    logits, features = output
    return pc.class_prototypes(features, logits.argmax(dim=1), logits.shape[1], per_image=True)
