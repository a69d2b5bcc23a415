"""Scores against matrices worked by hand; logits are scored at the labels' own size."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from reference.data.classes import NUM_CLASSES
from reference.evaluation.evaluate import Scores, confusion_matrix, evaluate, predict
from reference.networks.output import Output


class Ramp(nn.Module):
    """Class 1 beats class 0 where the first colour, averaged over 4x4 cells, exceeds one half."""

    align_corners = False

    def forward(self, images: Tensor) -> Output:
        red = nn.functional.avg_pool2d(images[:, :1], 4)
        logits = torch.full((len(images), NUM_CLASSES, *red.shape[-2:]), -9.0)
        logits[:, 0] = 0
        logits[:, 1:2] = red - 0.5
        return Output(logits, red)


def halves() -> Tensor:
    """One image of 8x16, black on the left, full red on the right."""
    image = torch.zeros(1, 3, 8, 16, dtype=torch.uint8)
    image[:, 0, :, 8:] = 255
    return image


def scores(rows: list[list[int]]) -> Scores:
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    confusion[: len(rows), : len(rows)] = torch.tensor(rows)
    return Scores(confusion)


def test_confusion_counts_truth_by_row_and_skips_255():
    truth = torch.tensor([[0, 0, 1], [1, 2, 255]], dtype=torch.uint8)
    guess = torch.tensor([[0, 1, 1], [0, 2, 2]])
    assert confusion_matrix(guess, truth, 3).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_nothing_to_score_counts_nothing():
    truth = torch.full((2, 2), 255)
    assert confusion_matrix(torch.zeros(2, 2), truth, 3).sum() == 0


@pytest.mark.parametrize(
    ("guess", "truth", "sentence"),
    [
        (
            torch.zeros(2, 3),
            torch.zeros(3, 2),
            "confusion_matrix: expected predictions of shape (3, 2) as labels, got (2, 3).",
        ),
        (
            torch.zeros(2),
            torch.tensor([0, 7]),
            "confusion_matrix: expected labels in 0..2, got values from 0 to 7.",
        ),
        (
            torch.tensor([1, 3]),
            torch.zeros(2),
            "confusion_matrix: expected predictions in 0..2, got values from 1 to 3.",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(guess, truth, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        confusion_matrix(guess, truth, 3)


def test_iou_worked_by_hand():
    # class 0: 6 right, 2 missed, 1 too many -> 6/9; class 1: 1 right, 1 missed, 2 too many -> 1/4;
    # class 2: never true, never guessed.
    result = scores([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
    assert result.iou_percent[:2] == pytest.approx([100 * 6 / 9, 25.0])
    assert result.iou_percent[2:] == [None] * (NUM_CLASSES - 2)
    assert result.occurring == (0, 1)
    assert result.mean_iou_percent(result.occurring) == pytest.approx((100 * 6 / 9 + 25) / 2)
    assert result.pixel_accuracy_percent == pytest.approx(70.0)


def test_a_class_guessed_but_never_true_counts_as_zero_where_it_is_asked_for():
    result = scores([[3, 1], [0, 0]])
    assert result.iou_percent[:2] == [75.0, 0.0]
    assert result.occurring == (0,)
    assert result.mean_iou_percent((0, 1)) == pytest.approx(37.5)


def test_subsets_are_means_of_rows_of_the_one_matrix():
    # Classes 0 (in all subsets), 3 (not in 13), 9 (in 19 only) with IoU 100, 50 and 0.
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    confusion[0, 0], confusion[3, 3], confusion[3, 9], confusion[9, 9] = 5, 2, 2, 0
    means = Scores(confusion).subset_means_percent()
    assert means == pytest.approx({"occurring": 75.0, "19": 50.0, "16": 75.0, "13": 100.0})


def test_an_empty_matrix_scores_zero():
    result = scores([[0]])
    assert result.mean_iou_percent(range(NUM_CLASSES)) == 0
    assert result.pixel_accuracy_percent == 0


def test_logits_are_upsampled_bilinearly_to_the_size_of_the_labels():
    assert predict(Ramp(), halves(), (8, 16)).unique(dim=1).tolist() == [[[0] * 8 + [1] * 8]]
    # Upsampled class maps would put the border at a multiple of 5 columns, not at 10.
    assert predict(Ramp(), halves(), (10, 20)).unique(dim=1).tolist() == [[[0] * 10 + [1] * 10]]


def test_the_network_says_how_its_corners_are_upsampled():
    network, narrow = Ramp(), torch.zeros(1, 3, 8, 12, dtype=torch.uint8)
    narrow[:, 0, :, 8:] = 255
    # Cells 0, 0, 1 on 9 columns: aligned corners put the border half a cell further left.
    assert predict(network, narrow, (8, 9))[0, 0].tolist() == [0] * 6 + [1] * 3
    network.align_corners = True
    assert predict(network, narrow, (8, 9))[0, 0].tolist() == [0] * 7 + [1] * 2


def test_every_image_is_scored_at_its_own_size():
    images = halves().repeat(3, 1, 1, 1)
    sizes = [(8, 16), (16, 32), (8, 16)]
    truths = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    result = evaluate(Ramp(), images, truths.__getitem__, batch_size=2)
    assert result.confusion[0, :2].tolist() == [64 + 256 + 64, 64 + 256 + 64]
    assert result.confusion.sum() == 2 * 128 + 512


def test_batches_do_not_matter():
    images = halves().repeat(5, 1, 1, 1)
    labels = torch.randint(0, 2, (5, 8, 16), generator=torch.Generator().manual_seed(0))
    whole = evaluate(Ramp(), images, labels, batch_size=5).confusion
    assert torch.equal(whole, evaluate(Ramp(), images, labels, batch_size=2).confusion)
