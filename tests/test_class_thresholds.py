"""`ClassThresholds`: shares by sorting, caps, movement, exact state, two ranks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import ClassThresholds, select_labels
from tests.strategies import normal, seeds

BIN = (80 + math.log(18)) / 8191


def batch(seed: int, classes: int = 4, pixels: int = 60) -> Tensor:
    return (3 * normal(seed, (2, classes, pixels), torch.float32)).softmax(dim=1)


def log_odds(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Best classes and log-odds of all pixels, flat."""
    best, labels = probabilities.double().max(dim=1)
    return labels.flatten(), (best / (1 - best)).log().flatten()


@given(seed=seeds, share=st.sampled_from([0.1, 0.29, 0.5, 0.9, 1.0]), classes=st.integers(2, 6))
def test_every_class_keeps_its_share(seed: int, share: float, classes: int) -> None:
    thresholds = ClassThresholds(classes, share=share)
    batches = [batch(seed + step, classes) for step in range(3)]
    for probabilities in batches:
        thresholds.update(probabilities)
    pairs = [log_odds(probabilities) for probabilities in batches]
    labels, odds = torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])
    selected = torch.cat([thresholds.select(p).labels.flatten() for p in batches])
    found = thresholds.thresholds()
    for c in range(classes):
        own = odds[labels == c].sort(descending=True).values
        if len(own) == 0:
            assert found[c] == math.inf
            continue
        wanted = max(1, math.ceil(share * len(own) - 1e-9))
        # The edge of the bin that the last pixel of the share lies in.
        if share < 1:
            assert own[wanted - 1] - 1.01 * BIN <= found[c] <= own[wanted - 1] + 1e-4
        kept = int((selected == c).sum())
        assert kept >= wanted
        assert kept <= int((own > own[wanted - 1] - 1.01 * BIN).sum())


def test_median_and_cap() -> None:
    sure = torch.tensor([0.99, 0.98, 0.97, 0.6, 0.55])
    unsure = torch.tensor([0.8, 0.7, 0.6])
    probabilities = torch.cat(
        [torch.stack([sure, 1 - sure], dim=1), torch.stack([1 - unsure, unsure], dim=1)]
    )
    plain, capped = ClassThresholds(2, share=0.5), ClassThresholds(2, share=0.5, cap=0.9)
    for thresholds in (plain, capped):
        thresholds.update(probabilities)
    assert plain.confidence().tolist() == pytest.approx([0.97, 0.7], abs=0.002)
    assert capped.confidence().tolist() == pytest.approx([0.9, 0.7], abs=0.002)
    assert plain.select(probabilities).labels.tolist() == [0, 0, 0, 255, 255, 1, 1, 255]


def test_a_class_that_was_never_predicted_has_the_cap() -> None:
    thresholds = ClassThresholds(3, cap=0.9)
    assert thresholds.confidence().tolist() == pytest.approx([0.9, 0.9, 0.9])
    thresholds = ClassThresholds(3)
    assert thresholds.thresholds().tolist() == [math.inf] * 3
    assert thresholds.confidence().tolist() == [1.0] * 3
    assert (thresholds.select(batch(0, 3)).labels == 255).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_share(share: float) -> None:
    thresholds = ClassThresholds(4, share=share)
    uniform = torch.full((5, 4), 0.25)
    for probabilities in (batch(0), uniform):
        thresholds.update(probabilities)
    for probabilities in (batch(0), uniform):
        kept = thresholds.select(probabilities).labels != 255
        assert kept.all() if share else not kept.any()


@pytest.mark.parametrize("cap", [0.0, 1.0])
def test_the_ends_of_the_cap(cap: float) -> None:
    thresholds = ClassThresholds(4, share=0.0, cap=cap)
    thresholds.update(batch(0))
    kept = thresholds.select(batch(0)).labels != 255
    assert not kept.any() if cap else kept.all()


def test_saturated_probabilities_are_told_apart() -> None:
    logits = torch.zeros(100, 2)
    logits[:, 0] = torch.linspace(20, 70, 100)
    probabilities = logits.softmax(dim=1)
    assert (probabilities[:, 0] == 1).all()
    thresholds = ClassThresholds(2, share=0.1)
    thresholds.update(probabilities)
    assert (thresholds.select(probabilities).labels == 0).sum() == 10


def test_the_share_of_an_image_is_added() -> None:
    probabilities = batch(0)
    plain, with_share = (
        ClassThresholds(4, share=0.2),
        ClassThresholds(4, share=0.2, image_share=0.5),
    )
    for thresholds in (plain, with_share):
        thresholds.update(probabilities)
    expected = select_labels(
        probabilities, plain.thresholds(), measure="log_odds", image_share=0.5
    ).labels
    assert torch.equal(with_share.select(probabilities).labels, expected)
    assert (expected != 255).sum() > (plain.select(probabilities).labels != 255).sum()
    assert with_share.select(probabilities, ignore_index=-1).labels.min() == -1


def test_without_momentum_order_and_parts_do_not_matter() -> None:
    one, other = ClassThresholds(4), ClassThresholds(4)
    for seed in range(4):
        one.update(batch(seed))
        other.update(torch.cat([batch(3 - seed)[1:], batch(3 - seed)[:1]]))
    assert torch.equal(one.mass, other.mass)
    assert one.mass.sum() == 4 * 120


def test_momentum_moves_what_a_batch_shows_and_copies_first() -> None:
    thresholds = ClassThresholds(2, momentum=0.75)
    first = torch.tensor([[0.9, 0.1]] * 4)
    thresholds.update(first)
    assert thresholds.mass.sum(dim=1).tolist() == [4, 0]
    thresholds.update(torch.tensor([[0.6, 0.4]] * 8 + [[0.2, 0.8]] * 2))
    assert thresholds.mass.sum(dim=1).tolist() == [0.75 * 4 + 0.25 * 8, 2]
    before = thresholds.mass.clone()
    thresholds.update(torch.tensor([[0.3, 0.7]]))
    assert torch.equal(thresholds.mass[0], before[0])
    assert thresholds.mass[1].sum() == 0.75 * 2 + 0.25 * 1


def test_momentum_forgets() -> None:
    still, moving = ClassThresholds(2), ClassThresholds(2, momentum=0.9)
    for thresholds in (still, moving):
        for confidence in [0.6] * 50 + [0.95] * 50:
            thresholds.update(torch.tensor([[confidence, 1 - confidence]]))
    assert still.confidence()[0].item() == pytest.approx(0.95, abs=0.002)
    # Seven batches of the new kind outweigh the old ones: 1 - 0.9^7 is above a half.
    for number, expected in [(6, 0.6), (7, 0.95)]:
        thresholds = ClassThresholds(2, momentum=0.9)
        for confidence in [0.6] * 50 + [0.95] * number:
            thresholds.update(torch.tensor([[confidence, 1 - confidence]]))
        assert thresholds.confidence()[0].item() == pytest.approx(expected, abs=0.002)


def test_nan_and_empty_batches_count_nothing() -> None:
    thresholds = ClassThresholds(4)
    thresholds.update(torch.full((3, 4), torch.nan))
    thresholds.update(torch.ones(0, 4))
    assert not thresholds.mass.any()


def test_one_class() -> None:
    thresholds = ClassThresholds(1)
    thresholds.update(torch.ones(3, 1))
    assert (thresholds.select(torch.ones(3, 1)).labels == 0).all()
