"""Scores: one confusion matrix over full-size labels, IoU in percent, means over some classes.

What has no pixel is undefined: None, not 0.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference.data.classes import IGNORE


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true class (row) and predicted class (column); labels of 255 do not count.

    Shape:
        predictions and labels of one shape, integer class numbers. Result: (C, C), int64.

    Example:
        >>> truth = torch.tensor([0, 0, 1, 255])
        >>> confusion_matrix(torch.tensor([0, 1, 1, 0]), truth, 2).tolist()
        [[1, 1], [0, 1]]
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"confusion_matrix: expected predictions of shape {tuple(labels.shape)} as labels, "
            f"got {tuple(predictions.shape)}."
        )
    scored = labels != IGNORE
    truth, guess = labels[scored].long(), predictions[scored].long()
    for name, values in (("labels", truth), ("predictions", guess)):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f"confusion_matrix: expected {name} in 0..{num_classes - 1}, "
                f"got values from {int(values.min())} to {int(values.max())}."
            )
    cells = torch.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix (C, C) says, true class by row."""

    confusion: Tensor

    @property
    def iou_percent(self) -> list[float | None]:
        """TP / (TP + FP + FN) per class, 0..100; None where a class has neither label nor guess."""
        hits = self.confusion.diag()
        union = self.confusion.sum(0) + self.confusion.sum(1) - hits
        pairs = zip(hits.tolist(), union.tolist(), strict=True)
        return [100 * hit / count if count else None for hit, count in pairs]

    @property
    def pixel_accuracy_percent(self) -> float | None:
        """Share of scored pixels that are right, 0..100; None where nothing is scored."""
        total = int(self.confusion.sum())
        return 100 * int(self.confusion.diag().sum()) / total if total else None

    @property
    def occurring(self) -> tuple[int, ...]:
        """Classes with at least one labelled pixel."""
        return tuple(self.confusion.sum(1).nonzero().flatten().tolist())

    def mean_iou_percent(self, classes: Iterable[int]) -> float | None:
        """Average the IoU over some classes, 0..100; None where none of them occurs.

        A class with neither label nor guess is left out; one that is guessed but never true is 0.
        """
        iou = self.iou_percent
        values = [value for value in (iou[label] for label in classes) if value is not None]
        return sum(values) / len(values) if values else None
