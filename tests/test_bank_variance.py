"""`PrototypeBank(variance=True)`: the variance follows the prototypes, whatever the rule."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import ClassStatistics, PrototypeBank, class_prototypes, class_statistics
from tests.test_bank import RULES, batch


def bank_of(**settings: Any) -> PrototypeBank:
    return PrototypeBank(3, 5, variance=True, **settings)


def spread_of(bank: PrototypeBank) -> Tensor:
    """The variance, which this bank has."""
    variance = bank.variance
    assert variance is not None
    return variance


@given(order=st.permutations(range(4)), cuts=st.lists(st.integers(0, 160), max_size=5))
def test_cumulative_is_the_pooled_variance_in_any_split_and_order(
    order: list[int], cuts: list[int]
) -> None:
    parts = [batch(seed) for seed in order]
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    pooled = class_statistics(features, labels, 3)
    bank = bank_of(rule="cumulative").double()
    edges = [0, *sorted(cuts), len(labels)]
    for start, stop in pairwise(edges):
        bank.update(features[start:stop], labels[start:stop])
    torch.testing.assert_close(spread_of(bank).float(), pooled.variance, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bank.prototypes.float(), pooled.mean, rtol=1e-5, atol=1e-6)
    for c in range(3):
        truth = features[labels == c].double().var(dim=0, unbiased=False)
        torch.testing.assert_close(spread_of(bank)[c], truth, rtol=1e-6, atol=1e-7)


def test_ema_is_the_variance_of_the_weighted_mixture() -> None:
    momentum, seeds = 0.7, range(4)
    bank = bank_of(momentum=momentum).double()
    rows, shares = [], []
    for step, seed in enumerate(seeds):
        features, labels = batch(seed)
        bank.update(features.double(), labels)
        members = features[labels == 1].double()
        rows.append(members)
        share = (1 - momentum if step else 1.0) * momentum ** (len(seeds) - 1 - step)
        shares.append(torch.full((len(members),), share / len(members)).double())
    weight, points = torch.cat(shares)[:, None], torch.cat(rows)
    mean = (weight * points).sum(dim=0)
    torch.testing.assert_close(weight.sum(), torch.ones(()).double())
    torch.testing.assert_close(bank.prototypes[1], mean)
    expected = (weight * (points - mean).square()).sum(dim=0)
    torch.testing.assert_close(spread_of(bank)[1], expected)


def test_replace_takes_the_latest() -> None:
    bank = bank_of(rule="replace")
    for seed in range(3):
        bank.update(*batch(seed))
    assert torch.equal(spread_of(bank), class_statistics(*batch(2), 3).variance)


@pytest.mark.parametrize("rule", RULES)
def test_first_touch_copies_and_absent_classes_keep_their_bits(rule: Any) -> None:
    bank = bank_of(rule=rule, momentum=0.4)
    bank.update(*batch(0, classes=2))
    assert torch.equal(spread_of(bank), class_statistics(*batch(0, classes=2), 3).variance)
    bank.update(*batch(1))
    before = spread_of(bank).clone()
    bank.update(*batch(2, classes=2))
    assert torch.equal(spread_of(bank)[2], before[2])
    assert not torch.equal(spread_of(bank)[:2], before[:2])


def test_momentum_one_never_changes() -> None:
    bank = bank_of(momentum=1.0)
    bank.update(*batch(0))
    before = spread_of(bank).clone()
    bank.update(*batch(1))
    assert torch.equal(spread_of(bank), before)


@pytest.mark.parametrize("rule", RULES)
def test_a_variance_that_is_not_finite_leaves_the_class_alone(rule: Any) -> None:
    bank = bank_of(rule=rule, momentum=0.5)
    bank.update(*batch(0))
    before = {name: value.clone() for name, value in bank.named_buffers()}
    stats = class_statistics(*batch(1), 3)
    stats.variance[1, 2] = math.inf
    bank.update_from(stats)
    assert bank.skipped.tolist() == [0, 1, 0]
    for name in ("prototypes", "count", "variance"):
        assert torch.equal(getattr(bank, name)[1], before[name][1])
        assert not torch.equal(getattr(bank, name)[0], before[name][0])


@pytest.mark.parametrize("rule", RULES)
def test_micro_batches_and_fit_equal_the_union(rule: Any) -> None:
    parts = [batch(seed) for seed in range(3)]
    union = tuple(torch.cat(column) for column in zip(*parts, strict=True))
    whole, pieces, fitted = (bank_of(rule=rule, normalize="features") for _ in range(3))
    whole.update(*union)
    for features, labels in parts:
        pieces.accumulate(class_statistics(features, labels, 3, normalize=True))
    pieces.commit()
    fitted.update(*batch(9))
    fitted.fit(parts)
    for bank in (pieces, fitted):
        torch.testing.assert_close(spread_of(bank), spread_of(whole))
        torch.testing.assert_close(bank.prototypes, whole.prototypes)
    assert not any(buffer.any() for name, buffer in pieces.named_buffers() if "pending" in name)


def test_images_count_once() -> None:
    features = torch.tensor([[[0.0, 2.0, 4.0]], [[9.0, 7.0, 7.0]]])
    labels = torch.tensor([[0, 0, 0], [0, 255, 255]])
    bank = PrototypeBank(1, 1, variance=True)
    bank.update_from(class_statistics(features, labels, 1, per_image=True))
    assert bank.prototypes.tolist() == [[5.5]]
    # Half of (8/3 + (2 - 5.5)^2) and half of (0 + (9 - 5.5)^2).
    assert spread_of(bank).item() == pytest.approx((8 / 3 + 12.25 + 12.25) / 2)


def test_a_bank_without_variance_has_none() -> None:
    bank = PrototypeBank(3, 5)
    bank.update(*batch(0))
    assert bank.variance is None
    assert "variance" not in bank.state_dict()


def test_statistics_of_plain_tuples() -> None:
    bank = bank_of()
    mean, count = class_prototypes(*batch(0), 3)
    bank.update_from(ClassStatistics(mean.half(), count, torch.ones(3, 5)))
    assert spread_of(bank).eq(1).all()
