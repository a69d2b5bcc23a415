"""`PrototypeBank(variance=True)`: the variance follows the prototypes, whatever the rule."""

import math
from typing import Any

import pytest
import torch
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


def test_images_count_once() -> None:
    features = torch.tensor([[[0.0, 2.0, 4.0]], [[9.0, 7.0, 7.0]]])
    labels = torch.tensor([[0, 0, 0], [0, 255, 255]])
    bank = PrototypeBank(1, 1, variance=True)
    bank.update_from(class_statistics(features, labels, 1, per_image=True))
    assert bank.prototypes.tolist() == [[5.5]]
    # Half of (8/3 + (2 - 5.5)^2) and half of (0 + (9 - 5.5)^2).
    assert spread_of(bank).item() == pytest.approx((8 / 3 + 12.25 + 12.25) / 2)


def test_statistics_of_plain_tuples() -> None:
    bank = bank_of()
    mean, count = class_prototypes(*batch(0), 3)
    bank.update_from(ClassStatistics(mean.half(), count, torch.ones(3, 5)))
    assert spread_of(bank).eq(1).all()
