"""`select_labels` and `confident_share`: loops, ties, shares at the edge."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import confident_share, select_labels
from tests.strategies import laid_out, layouts, normal, seeds


def selected(image: list[list[float]], thresholds: list[float], image_share: float) -> list[int]:
    """Labels of one image's pixels, each a row of probabilities."""
    best = [max(row) for row in image]
    number = math.floor(image_share * len(image) + 1e-9)
    edge = -math.inf
    if number < len(image):
        edge = sorted(best, reverse=True)[number]
    labels = []
    for row, sure in zip(image, best, strict=True):
        label = row.index(sure)
        kept = sure >= thresholds[label] or (number > 0 and sure > edge)
        labels.append(label if kept else 255)
    return labels


@given(
    seed=seeds,
    layout=layouts,
    image_share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    coarse=st.booleans(),
)
def test_labels_by_loops(seed: int, layout: str, image_share: float, coarse: bool) -> None:
    logits = normal(seed, (2, 4, 3, 4))
    if coarse:
        logits = logits.round()
    probabilities = laid_out(logits.softmax(dim=1), layout)
    thresholds = torch.rand(4, generator=torch.Generator().manual_seed(seed)).double()
    found = select_labels(probabilities, thresholds, image_share=image_share)
    rows = probabilities.movedim(1, -1).reshape(2, 12, 4).tolist()
    expected = [selected(image, thresholds.tolist(), image_share) for image in rows]
    if not coarse or image_share == 0:
        assert found.labels.flatten(1).tolist() == expected
    assert torch.equal(found.confidence, probabilities.amax(dim=1))
    odds = (thresholds / (1 - thresholds)).log()
    by_odds = select_labels(probabilities, odds, measure="log_odds", image_share=image_share)
    if not coarse:
        assert torch.equal(by_odds.labels, found.labels)


def test_one_threshold_stands_for_all() -> None:
    probabilities = normal(0, (50, 4)).softmax(dim=1)
    one = select_labels(probabilities, 0.5).labels
    for same in (torch.tensor(0.5), torch.full((4,), 0.5)):
        assert torch.equal(select_labels(probabilities, same).labels, one)
    sure = probabilities.amax(dim=1) >= 0.5
    assert torch.equal(one, torch.where(sure, probabilities.argmax(dim=1), 255))


def test_thresholds_beyond_every_measure_keep_all_or_none() -> None:
    """Infinite ones, and those per class, which are data; odds may be above one."""
    shares = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    for threshold, labels in ((math.inf, [255, 255]), (-math.inf, [0, 1])):
        for one in (threshold, torch.full((2,), threshold)):
            assert select_labels(shares, one).labels.tolist() == labels
    assert select_labels(shares, torch.tensor([0.5, 7.0])).labels.tolist() == [0, 255]
    assert select_labels(shares, 1.5, measure="log_odds").labels.tolist() == [0, 255]


def test_only_the_own_threshold_counts() -> None:
    """The released rule would keep this pixel, since class 1 passes its own low threshold."""
    probabilities = torch.tensor([[0.7, 0.3]])
    assert select_labels(probabilities, torch.tensor([0.9, 0.2])).labels.tolist() == [255]


@given(seed=seeds)
def test_higher_thresholds_only_remove_labels(seed: int) -> None:
    probabilities = normal(seed, (40, 3)).softmax(dim=1)
    maps = [select_labels(probabilities, t).labels for t in (0.0, 0.4, 0.6, 0.9, math.inf)]
    assert (maps[0] != 255).all()
    assert (maps[-1] == 255).all()
    for lower, higher in pairwise(maps):
        assert ((higher == lower) | (higher == 255)).all()


def test_log_odds_tell_apart_what_rounds_to_one() -> None:
    logits = torch.tensor([[20.0, 0.0], [30.0, 0.0], [40.0, 0.0]])
    probabilities = logits.softmax(dim=1)
    assert probabilities[:, 0].tolist() == [1.0, 1.0, 1.0]
    found = select_labels(probabilities, 25.0, measure="log_odds")
    assert found.labels.tolist() == [255, 0, 0]
    torch.testing.assert_close(found.confidence, torch.tensor([20.0, 30.0, 40.0]))
    third = select_labels(probabilities, math.inf, image_share=1 / 3)
    assert third.labels.tolist() == [255, 255, 0]


def test_a_share_of_each_image_is_what_was_written() -> None:
    sureness = torch.linspace(0.6, 0.9, 100)
    probabilities = torch.stack([sureness, 1 - sureness])[None].expand(2, 2, 100)
    for hundredths in range(101):
        found = select_labels(probabilities, math.inf, image_share=hundredths / 100)
        kept = (found.labels != 255).sum(dim=1)
        assert kept.tolist() == [hundredths, hundredths]


def test_ties_at_the_edge_are_dropped() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    found = select_labels(probabilities, math.inf, image_share=0.5)
    assert found.labels.tolist() == [0, 255, 255, 255]


def test_ties_between_classes_go_to_the_lowest() -> None:
    assert select_labels(torch.full((3, 5), 0.2), 0.0).labels.tolist() == [0, 0, 0]


def test_nan_is_ignored() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [math.nan, 0.1], [0.7, 0.3]])
    found = select_labels(probabilities, 0.0)
    assert found.labels.tolist() == [0, 255, 0]
    assert found.confidence.isnan().tolist() == [False, True, False]
    half = select_labels(probabilities, math.inf, image_share=1.0)
    assert half.labels.tolist() == [0, 255, 0]
    assert confident_share(probabilities, 0.0).item() == pytest.approx(2 / 3)


def test_dtypes_and_gradient() -> None:
    probabilities = normal(0, (6, 3)).softmax(dim=1).requires_grad_()
    found = select_labels(probabilities, 0.5)
    assert found.labels.dtype == torch.int64
    assert found.confidence.dtype == torch.float64
    assert not found.confidence.requires_grad
    assert select_labels(probabilities.half(), 0.5).confidence.dtype == torch.float32
    assert select_labels(probabilities, 0.5, ignore_index=-1).labels.min() == -1


@given(seed=seeds, threshold=st.sampled_from([0.0, 0.3, 0.5, 0.968, 1.0]))
def test_confident_share_is_counted(seed: int, threshold: float) -> None:
    probabilities = (3 * normal(seed, (2, 4, 3, 5))).softmax(dim=1)
    sure = [
        sum(max(row) >= threshold for row in image) / 15
        for image in probabilities.movedim(1, -1).reshape(2, 15, 4).tolist()
    ]
    found = confident_share(probabilities, threshold, per_image=True)
    assert found.tolist() == pytest.approx(sure)
    whole = confident_share(probabilities, threshold)
    assert whole.shape == ()
    assert whole.item() == pytest.approx(sum(sure) / 2)
