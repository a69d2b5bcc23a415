"""Scores: one confusion matrix over full-size labels, IoU in percent, means over named classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES, SUBSETS
from reference.networks.output import Segmenter
from reference.networks.toy import unit_range
from reference.progress import track


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        predictions: train ids, below `num_classes`.
        labels: train ids; 255 is not counted.
        num_classes: rows and columns C of the matrix.

    Shape:
        predictions and labels of one shape, integer. Result: (C, C), int64.

    Raises:
        ValueError: shapes differ, or a value is neither a class nor (labels only) 255.

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
    """What a confusion matrix says.

    Args:
        confusion: pixel counts, true class by row, (C, C), int64.
    """

    confusion: Tensor

    @property
    def iou_percent(self) -> list[float | None]:
        """TP / (TP + FP + FN) per class, 0..100; None where a class has neither label nor guess."""
        hits = self.confusion.diag().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diag()
        return [
            None if count == 0 else 100 * float(hit) / float(count)
            for hit, count in zip(hits, union, strict=True)
        ]

    @property
    def pixel_accuracy_percent(self) -> float:
        """Share of scored pixels that are right, 0..100; 0 where nothing is scored."""
        return 100 * float(self.confusion.diag().sum()) / max(1, int(self.confusion.sum()))

    @property
    def occurring(self) -> tuple[int, ...]:
        """Train ids with at least one labelled pixel."""
        return tuple(self.confusion.sum(1).nonzero().flatten().tolist())

    def mean_iou_percent(self, classes: Iterable[int]) -> float:
        """Average the IoU over some classes.

        Args:
            classes: train ids. A class with neither label nor guess is left out of the mean; one
                that is guessed but never true counts as 0.

        Returns:
            float: 0..100; 0 where no class is left.
        """
        iou = self.iou_percent
        found = [value for value in (iou[label] for label in classes) if value is not None]
        return sum(found) / max(1, len(found))

    def subset_means_percent(self) -> dict[str, float]:
        """Mean IoU over the classes that occur and over the 19, 16 and 13 of the papers.

        The 16 and 13 are means of rows of this one matrix, not of a matrix cut down to them.
        """
        subsets = {"occurring": self.occurring, **SUBSETS}
        return {name: self.mean_iou_percent(classes) for name, classes in subsets.items()}


@torch.no_grad()
def upsampled_logits(network: Segmenter, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute logits and upsample them bilinearly, by the network's own corner convention.

    Args:
        network: any.
        images: a batch, float in [0, 1].
        size: height and width of the result, pixels.

    Shape:
        images (B, 3, h, w). Result: (B, C, H, W).
    """
    logits = network(images).logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=network.align_corners)


def predict(network: Segmenter, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Label every pixel: logits upsampled bilinearly, then the best class.

    Args:
        network: any.
        images: a batch as stored.
        size: height and width of the result, pixels.

    Shape:
        images (B, 3, h, w), uint8. Result: (B, H, W), int64 train ids.
    """
    return upsampled_logits(network, unit_range(images), size).argmax(dim=1)


def evaluate(
    network: Segmenter,
    images: Tensor,
    labels: Callable[[int], Tensor] | Tensor,
    *,
    batch_size: int = 10,
    description: str = "evaluate",
    progress: bool = False,
) -> Scores:
    """Score a network on labelled images, at the labels' own size.

    Args:
        network: any.
        images: the images at the network's input size.
        labels: all labels as one tensor, or a function from the image's index to its labels; then
            sizes may differ between images.
        batch_size: images per forward pass.
        description: what the bar says.
        progress: show a bar.

    Shape:
        images (N, 3, h, w), uint8; labels (N, H, W), or (H_i, W_i) per image, integer.
    """
    label_of = labels.__getitem__ if isinstance(labels, Tensor) else labels
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    batches = torch.arange(len(images)).split(batch_size)
    for number in track(len(batches), description, show=progress):
        truths = [label_of(index) for index in batches[number].tolist()]
        sizes = {tuple(truth.shape) for truth in truths}
        for size in sorted(sizes):
            chosen = [i for i, truth in enumerate(truths) if tuple(truth.shape) == size]
            guesses = predict(network, images[batches[number][chosen]], (size[0], size[1]))
            truth = torch.stack([truths[i] for i in chosen])
            confusion += confusion_matrix(guesses, truth, NUM_CLASSES)
    return Scores(confusion)
