"""How right pseudo labels are: measured from outside, by someone who owns the target labels.

Training never sees target labels. It hands out what it did (`history.Observation`) and takes
nothing back; here that is compared with the truth, for reports only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reference.data.classes import IGNORE
from reference.training.history import Observation
from reference.training.losses import cell_labels


@dataclass
class _Tally:
    right: int = 0
    labelled: int = 0

    def add(self, guess: Tensor | None, truth: Tensor) -> None:
        if guess is not None:
            given = (guess != IGNORE) & (truth != IGNORE)
            self.labelled += int(given.sum())
            self.right += int((guess[given] == truth[given]).sum())

    @property
    def percent(self) -> float | None:
        return 100 * self.right / self.labelled if self.labelled else None


@dataclass(frozen=True)
class AccuracyPoint:
    """Shares of labels that are right, in percent, over the steps since the point before.

    Args:
        step: number of steps done.
        pseudo_labels: of the labels the contrast used; None where it had none.
        static_labels: of the static ones among them; None where the run had none.
        predictions: of the network's own predictions, on all cells.
    """

    step: int
    pseudo_labels: float | None
    static_labels: float | None
    predictions: float | None


class PseudoLabelAccuracy:
    """An observer for `train.adapt` that knows the target labels.

    Args:
        labels: the labels of the target training images, in their order.
        every: steps per point.

    Shape:
        labels (N, H, W), train ids or 255; cells of the network's grid are judged by their middle
        pixel, as in training, and cells without a label are left out.
    """

    def __init__(self, labels: Tensor, *, every: int = 25) -> None:
        self.labels = labels
        self.every = every
        self.points: list[AccuracyPoint] = []
        self._tallies = (_Tally(), _Tally(), _Tally())

    def __call__(self, seen: Observation) -> None:
        """Compare one step's labels with the truth."""
        labels = self.labels[seen.indices]
        truth = cell_labels(torch.where(seen.flipped.view(-1, 1, 1), labels.flip(-1), labels))
        guesses = (seen.pseudo_labels, seen.static_labels, seen.predictions)
        for tally, guess in zip(self._tallies, guesses, strict=True):
            tally.add(guess, truth)
        if (seen.step + 1) % self.every == 0:
            self.points.append(
                AccuracyPoint(seen.step + 1, *(tally.percent for tally in self._tallies))
            )
            self._tallies = (_Tally(), _Tally(), _Tally())
