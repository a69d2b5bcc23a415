"""`PrototypeBank`: images that count once, micro-batches, a whole loader, and the variance."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    ClassPrototypes,
    ClassStatistics,
    PrototypeBank,
    class_prototypes,
    class_statistics,
)
from tests.test_bank import KINDS, RULES, batch

CLASSES, DIM = 3, 5


def images(seed: int, number: int = 3, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(number, DIM, 4, 4, generator=random)
    labels = torch.randint(0, classes, (number, 4, 4), generator=random)
    labels[torch.rand(number, 4, 4, generator=random) < 0.3] = 255
    return features, labels


def stats_for(bank: PrototypeBank, features: Tensor, labels: Tensor) -> Any:
    """Of a batch, as the bank takes them."""
    take = class_prototypes if bank.variance is None else class_statistics
    return take(features, labels, CLASSES, normalize=bank.normalize == "features")


def test_each_image_counts_once() -> None:
    mean = torch.tensor([[[1.0], [10.0]], [[3.0], [math.nan]], [[math.nan], [math.nan]]])
    count = torch.tensor([[100.0, 7.0], [1.0, 0.0], [0.0, 0.0]])
    bank = PrototypeBank(2, 1)
    stats = bank.update_from(ClassPrototypes(mean, count))
    assert stats.mean.tolist() == bank.prototypes.tolist() == [[2.0], [10.0]]
    assert stats.count.tolist() == bank.count.tolist() == [2.0, 1.0]


def test_a_mean_of_image_means_is_not_the_mean_of_pixels() -> None:
    features, labels = images(0)
    by_pixel, by_image = PrototypeBank(CLASSES, DIM), PrototypeBank(CLASSES, DIM)
    by_pixel.update(features, labels)
    per_image = class_prototypes(features, labels, CLASSES, per_image=True)
    by_image.update_from(per_image)
    rows = torch.stack([per_image.mean[per_image.present[:, c], c].mean(dim=0) for c in range(3)])
    torch.testing.assert_close(by_image.prototypes, rows)
    assert not torch.allclose(by_image.prototypes, by_pixel.prototypes)


def test_an_image_that_is_not_finite_stops_its_class_only() -> None:
    features, labels = images(0)
    features[1, 0][labels[1] == 2] = math.nan
    bank = PrototypeBank(CLASSES, DIM)
    bank.update_from(class_prototypes(features, labels, CLASSES, per_image=True))
    assert bank.skipped.tolist() == [0, 0, 1]
    assert bank.present.tolist() == [True, True, False]


def test_no_images() -> None:
    bank = PrototypeBank(CLASSES, DIM)
    features, labels = images(0, number=0)
    stats = bank.update_from(class_prototypes(features, labels, CLASSES, per_image=True))
    assert stats.count.tolist() == [0.0, 0.0, 0.0]
    assert not bank.present.any()


@pytest.mark.parametrize("rule", ["ema", "cumulative", "replace"])
@given(
    parts=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), min_size=1, max_size=4),
    kind=st.sampled_from(KINDS),
)
def test_micro_batches_equal_their_union(
    rule: Any, parts: list[tuple[int, int]], kind: dict[str, Any]
) -> None:
    settings = {"rule": rule, "momentum": 0.6, **kind}
    whole, split = PrototypeBank(CLASSES, DIM, **settings), PrototypeBank(CLASSES, DIM, **settings)
    for bank in (whole, split):
        bank.update(*images(100))
    batches = [images(seed, number=number) for seed, number in parts]
    union = [torch.cat(column) for column in zip(*batches, strict=True)]
    expected = whole.update(*union)
    for features, labels in batches:
        split.accumulate(stats_for(split, features, labels))
    shared = split.commit()
    torch.testing.assert_close(shared.mean, expected.mean.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shared.count, expected.count.double())
    for name, value in whole.named_buffers():
        torch.testing.assert_close(getattr(split, name), value, rtol=1e-5, atol=1e-6)


def test_accumulating_moves_nothing_until_commit() -> None:
    bank = PrototypeBank(CLASSES, DIM, momentum=0.5)
    bank.update(*images(0))
    before = bank.prototypes.clone(), bank.count.clone()
    bank.accumulate(class_prototypes(*images(1), CLASSES))
    assert torch.equal(bank.prototypes, before[0])
    assert torch.equal(bank.count, before[1])
    bank.commit()
    assert not torch.equal(bank.prototypes, before[0])
    assert not bank.pending_sum.any()
    assert not bank.pending_count.any()


def test_a_commit_of_nothing_changes_nothing() -> None:
    bank = PrototypeBank(CLASSES, DIM)
    bank.update(*images(0))
    before = {name: value.clone() for name, value in bank.named_buffers()}
    assert not bank.commit().present.any()
    assert all(torch.equal(value, before[name]) for name, value in bank.named_buffers())


def test_a_micro_batch_that_is_not_finite_stops_its_class_in_the_union() -> None:
    bank = PrototypeBank(2, 1)
    bank.accumulate(ClassPrototypes(torch.tensor([[1.0], [2.0]]), torch.ones(2)))
    bank.accumulate(ClassPrototypes(torch.tensor([[math.inf], [4.0]]), torch.ones(2)))
    bank.commit()
    assert bank.skipped.tolist() == [1, 0]
    assert bank.prototypes.tolist() == [[0.0], [3.0]]


def test_means_near_the_largest_number_do_not_overflow_while_they_add_up() -> None:
    bank = PrototypeBank(1, 1)
    for _ in range(4):
        bank.accumulate(ClassPrototypes(torch.tensor([[3e38]]), torch.tensor([1e6])))
    bank.commit()
    assert bank.prototypes.item() == pytest.approx(3e38)


def test_an_update_between_leaves_what_is_pending() -> None:
    bank = PrototypeBank(1, 1, rule="replace")
    bank.accumulate(ClassPrototypes(torch.tensor([[2.0]]), torch.ones(1)))
    bank.update_from(ClassPrototypes(torch.tensor([[9.0]]), torch.ones(1)))
    assert bank.commit().mean.item() == 2.0
    assert bank.prototypes.item() == 2.0


@pytest.mark.parametrize("rule", ["ema", "cumulative", "replace"])
@pytest.mark.parametrize("kind", KINDS)
def test_fit_is_the_exact_pool(rule: Any, kind: dict[str, Any]) -> None:
    bank = PrototypeBank(CLASSES, DIM, rule=rule, momentum=1.0, **kind)
    bank.update(*images(9))
    bank.accumulate(stats_for(bank, *images(8)))
    bank.skipped += 1
    batches = [images(seed, number=1 + seed) for seed in range(4)]

    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        yield from batches

    assert bank.fit(loader()) is bank
    features, labels = (torch.cat(column) for column in zip(*batches, strict=True))
    pooled = stats_for(bank, features.double(), labels)
    rows = pooled.mean
    if bank.normalize == "prototypes":
        rows = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(bank.prototypes, rows.float())
    assert torch.equal(bank.count, pooled.count)
    if bank.variance is not None:
        torch.testing.assert_close(bank.variance, pooled.variance.float())
    assert not bank.skipped.any()
    assert not bank.pending_sum.any()


def test_fit_of_nothing_empties_the_bank() -> None:
    bank = PrototypeBank(CLASSES, DIM)
    bank.update(*images(0))
    bank.fit([])
    assert not any(buffer.any() for buffer in bank.buffers())


def test_fit_takes_another_ignore_index() -> None:
    bank = PrototypeBank(1, 1)
    bank.fit([(torch.tensor([[1.0], [7.0]]), torch.tensor([0, -100]))], ignore_index=-100)
    assert bank.prototypes.item() == 1.0


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
