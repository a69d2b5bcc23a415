"""Pseudo labels against the truth, looked at from outside."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.evaluation.label_accuracy import AccuracyPoint, PseudoLabelAccuracy
from reference.training.history import Observation

# Two images of 4x8: their cells have the labels (1, 2) and (3, not scored).
TRUTH = torch.tensor([[1, 2], [3, 255]], dtype=torch.uint8)
LABELS = TRUTH.repeat_interleave(4, dim=1)[:, None, :].expand(2, 4, 8)


def cells(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)[:, None, :]


def seen(
    step: int,
    predictions: Tensor,
    *,
    flipped: bool = False,
    pseudo: Tensor | None = None,
    static: Tensor | None = None,
) -> Observation:
    order = torch.tensor([1, 0])
    return Observation(step, order, torch.tensor([flipped, False]), predictions, pseudo, static)


def test_only_given_labels_on_scored_cells_count():
    accuracy = PseudoLabelAccuracy(LABELS, every=1)
    predictions = cells([3, 0], [1, 1])
    pseudo = cells([3, 7], [255, 1])
    static = cells([255, 255], [1, 255])
    accuracy(seen(0, predictions, pseudo=pseudo, static=static))
    # Predictions: 3 and 1 right, 1 (for 2) wrong. Pseudo labels: 3 right, 1 (for 2) wrong.
    assert accuracy.points == [AccuracyPoint(1, 50.0, 100.0, 200 / 3)]


def test_mirrored_images_are_compared_with_mirrored_labels():
    accuracy = PseudoLabelAccuracy(LABELS, every=1)
    accuracy(seen(0, cells([9, 3], [1, 2]), flipped=True))
    assert accuracy.points == [AccuracyPoint(1, None, None, 100.0)]


def test_points_count_over_all_their_steps_and_start_anew():
    accuracy = PseudoLabelAccuracy(LABELS, every=2)
    right, wrong = cells([3, 0], [1, 2]), cells([4, 0], [4, 4])
    for step, predictions in enumerate([right, wrong, wrong, wrong]):
        accuracy(seen(step, predictions))
    assert [point.predictions for point in accuracy.points] == [50.0, 0.0]


def test_the_middle_pixel_of_a_cell_decides():
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[0, 2, 2] = 6
    accuracy = PseudoLabelAccuracy(labels, every=1)
    index, straight = torch.tensor([0]), torch.tensor([False])
    accuracy(Observation(0, index, straight, torch.tensor([[[6]]]), None, None))
    assert accuracy.points[0].predictions == 100.0
