"""`PrototypeBank`: how a batch moves it, rule by rule, and what leaves it alone."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from protocontrast import (
    ClassPrototypes,
    PrototypeBank,
    class_prototypes,
    class_statistics,
    naive,
)

RULES = ["ema", "cumulative", "replace"]
KINDS: list[dict[str, Any]] = [
    *({"normalize": one} for one in (False, "features", "prototypes")),
    *({"normalize": one, "variance": True} for one in (False, "features")),
]
with_or_without = pytest.mark.parametrize("variance", [False, True])
NORMALIZE = [False, "features", "prototypes"]


def stats_of(*means: float | None, count: float = 1.0) -> ClassPrototypes:
    """One channel; None is a class that the batch does not hold."""
    mean = torch.tensor([[math.nan if value is None else value] for value in means])
    counts = torch.tensor([0.0 if value is None else count for value in means])
    return ClassPrototypes(mean, counts)


def batch(seed: int, classes: int = 3, pixels: int = 40) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(pixels, 5, generator=random) * 3
    labels = torch.randint(0, classes, (pixels,), generator=random)
    labels[torch.rand(pixels, generator=random) < 0.2] = 255
    return features, labels


def assert_latest(bank: PrototypeBank, features: Tensor, labels: Tensor) -> None:
    """The bank holds what one batch alone shows."""
    stats = class_statistics(features, labels, 3)
    assert torch.equal(bank.prototypes, stats.mean)
    assert bank.variance is None or torch.equal(bank.variance, stats.variance)


@with_or_without
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("rule", RULES)
def test_first_touch_copies(rule: Any, momentum: float, variance: bool) -> None:
    bank = PrototypeBank(3, 5, rule=rule, momentum=momentum, variance=variance)
    features, labels = batch(0, classes=2)
    stats = bank.update(features, labels)
    assert_latest(bank, features, labels)
    assert torch.equal(stats.mean, class_prototypes(features, labels, 3).mean)
    assert bank.present.tolist() == [True, True, False]
    assert torch.equal(bank.count, stats.count.double())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_absent_classes_stay_bit_identical(rule: Any, kind: dict[str, Any]) -> None:
    settings = {"rule": rule, "momentum": 0.37, **kind}
    bank = PrototypeBank(3, 5, **settings)
    bank.update(*batch(0))
    for seed in range(1, 6):
        before = {name: value.clone() for name, value in bank.named_buffers()}
        bank.update(*batch(seed, classes=2))
        for name, value in bank.named_buffers():
            assert torch.equal(value[2], before[name][2])
        assert not torch.equal(bank.prototypes[:2], before["prototypes"][:2])


@given(
    momentum=st.floats(0, 1),
    seeds=st.lists(st.integers(0, 10**6), min_size=2, max_size=4),
    classes=st.lists(st.integers(1, 3), min_size=4, max_size=4),
)
def test_ema_is_the_equation(momentum: float, seeds: list[int], classes: list[int]) -> None:
    bank = PrototypeBank(3, 5, momentum=momentum).double()
    expected: Tensor | None = None
    seen = torch.zeros(3, dtype=torch.bool)
    for seed, number in zip(seeds, classes, strict=False):
        features, labels = batch(seed, number)
        stats = class_prototypes(features.double(), labels, 3)
        old = torch.zeros(3, 5, dtype=torch.float64) if expected is None else expected
        old = torch.where((stats.present & ~seen)[:, None], stats.mean, old)
        expected = naive.moving_average(old, stats.mean, momentum, stats.present)
        seen |= stats.present
        bank.update(features.double(), labels)
        torch.testing.assert_close(bank.prototypes, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(bank.present, seen)


# G14 of a moving average that starts at zero: after t steps of v it is (1 - momentum^t) v.
@pytest.mark.parametrize(
    ("momentum", "steps", "reached"),
    [(0.9, 7, 0.521703), (0.99, 69, 0.500163), (0.99, 100, 0.633968), (0.999, 693, 0.500100)],
)
def test_half_lives(momentum: float, steps: int, reached: float) -> None:
    bank = PrototypeBank(1, 1, momentum=momentum)
    bank.update_from(stats_of(0.0))
    for _ in range(steps):
        bank.update_from(stats_of(8.0))
    assert bank.prototypes.item() / 8 == pytest.approx(reached, abs=1e-5)


@with_or_without
def test_momentum_one_never_changes_zero_and_replace_take_the_latest(variance: bool) -> None:
    frozen, latest = (PrototypeBank(3, 5, momentum=m, variance=variance) for m in (1.0, 0.0))
    rule = PrototypeBank(3, 5, rule="replace", momentum=0.9, variance=variance)
    for seed in range(4):
        for bank in (frozen, latest, rule):
            bank.update(*batch(seed))
        assert_latest(frozen, *batch(0))
        for bank in (latest, rule):
            assert_latest(bank, *batch(seed))


@with_or_without
@given(order=st.permutations(range(4)), cuts=st.lists(st.integers(0, 160), max_size=5))
def test_cumulative_is_the_pool_in_any_split_and_order(
    variance: bool, order: list[int], cuts: list[int]
) -> None:
    parts = [batch(seed) for seed in order]
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    pooled = class_statistics(features, labels, 3)
    bank = PrototypeBank(3, 5, rule="cumulative", variance=variance)
    edges = [0, *sorted(cuts), len(labels)]
    for start, stop in pairwise(edges):
        bank.update(features[start:stop], labels[start:stop])
    torch.testing.assert_close(bank.prototypes, pooled.mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(bank.count, pooled.count.double())
    if bank.variance is not None:
        torch.testing.assert_close(bank.variance, pooled.variance, rtol=1e-5, atol=1e-6)


def test_counts_add_up_beyond_what_float32_counts() -> None:
    bank = PrototypeBank(1, 1)
    bank.update_from(stats_of(1.0, count=2.0**24))
    bank.update_from(stats_of(1.0))
    assert bank.count.item() == 2**24 + 1


def test_normalized_features_are_averaged() -> None:
    bank = PrototypeBank(1, 2, normalize="features")
    bank.update(torch.tensor([[3.0, 4.0], [0.0, 0.5]]), torch.tensor([0, 0]))
    torch.testing.assert_close(bank.prototypes, torch.tensor([[0.3, 0.9]]))


def test_normalized_prototypes_have_length_one() -> None:
    bank = PrototypeBank(4, 5, normalize="prototypes", momentum=0.8)
    expected: Tensor | None = None
    for seed in range(4):
        mean = bank.update(*batch(seed)).mean[:3]
        moved = mean if expected is None else 0.8 * expected + 0.2 * mean
        expected = moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(bank.prototypes[:3], expected)
        torch.testing.assert_close(bank.prototypes.norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
        assert not torch.allclose(mean.norm(dim=1), torch.ones(3), atol=0.05)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1.0, 1e30])
def test_the_smallest_and_largest_means_are_normalized_too(size: float) -> None:
    bank = PrototypeBank(1, 2, normalize="prototypes")
    bank.update_from(ClassPrototypes(torch.tensor([[size, 0.0]]), torch.ones(1)))
    assert bank.prototypes.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("rule", RULES)
def test_a_class_that_is_not_finite_keeps_its_value(
    rule: Any, normalize: Any, value: float
) -> None:
    bank = PrototypeBank(3, 5, rule=rule, momentum=0.5, normalize=normalize)
    bank.update(*batch(0))
    reference = PrototypeBank(3, 5, rule=rule, momentum=0.5, normalize=normalize)
    reference.load_state_dict(bank.state_dict())
    features, labels = batch(1)
    reference.update(features, torch.where(labels == 1, 255, labels))
    features[(labels == 1).nonzero()[0], 2] = value
    bank.update(features, labels)
    assert bank.skipped.tolist() == [0, 1, 0]
    for name in ("prototypes", "count", "present"):
        ours, expected = getattr(bank, name), getattr(reference, name)
        assert torch.equal(ours[1], expected[1])
        # Beside a non-finite pixel sums are added one by one, in another order than a product's.
        torch.testing.assert_close(ours, expected)


def test_a_class_that_was_never_finite_is_absent() -> None:
    bank = PrototypeBank(2, 1)
    bank.update(torch.tensor([[math.nan], [1.0]]), torch.tensor([0, 1]))
    assert bank.present.tolist() == [False, True]
    assert bank.prototypes.tolist() == [[0.0], [1.0]]
    assert bank.count.tolist() == [0.0, 1.0]
    bank.update_from(stats_of(7.0, None))
    assert bank.prototypes.tolist() == [[7.0], [1.0]]
    assert bank.skipped.tolist() == [1, 0]


def test_ignored_pixels_are_never_read() -> None:
    bank = PrototypeBank(1, 1)
    bank.update(torch.tensor([[math.nan], [2.0]]), torch.tensor([-100, 0]), ignore_index=-100)
    assert bank.prototypes.tolist() == [[2.0]]
    assert bank.skipped.tolist() == [0]


def test_a_mean_too_large_for_the_bank_is_not_finite() -> None:
    bank = PrototypeBank(1, 1)
    wide = torch.tensor([[1e300]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    bank.update_from(ClassPrototypes(*wide))
    assert (bank.prototypes.item(), bank.skipped.item()) == (0.0, 1)
    bank.double().update_from(ClassPrototypes(*wide))
    assert (bank.prototypes.item(), bank.skipped.item()) == (1e300, 1)


@pytest.mark.parametrize("count", [math.nan, math.inf])
def test_a_count_that_is_not_finite_is_skipped(count: float) -> None:
    bank = PrototypeBank(2, 1)
    bank.update_from(ClassPrototypes(torch.ones(2, 1), torch.tensor([count, 2.0])))
    assert bank.skipped.tolist() == [1, 0]
    assert bank.prototypes.tolist() == [[0.0], [1.0]]
    assert bank.count.tolist() == [0.0, 2.0]


def test_pixel_weights_weigh() -> None:
    bank = PrototypeBank(1, 1, rule="cumulative")
    weight = torch.tensor([3.0, 1.0, 0.0])
    features = torch.tensor([[1.0], [5.0], [math.nan]])
    stats = bank.update(features, torch.zeros(3, dtype=torch.long), pixel_weight=weight)
    assert stats.count.tolist() == bank.count.tolist() == [4.0]
    assert bank.prototypes.tolist() == [[2.0]]


@pytest.mark.parametrize("size", [0, 4])
def test_a_batch_without_a_valid_pixel_changes_nothing(size: int) -> None:
    bank = PrototypeBank(3, 5, momentum=0.3)
    bank.update(*batch(0))
    before = {name: value.clone() for name, value in bank.named_buffers()}
    stats = bank.update(torch.full((size, 5), math.nan), torch.full((size,), 255))
    assert not stats.present.any()
    assert all(torch.equal(value, before[name]) for name, value in bank.named_buffers())


def test_no_gradient_reaches_the_bank() -> None:
    features, labels = batch(0)
    bank = PrototypeBank(3, 5)
    stats = bank.update(features.requires_grad_(), labels)
    assert not stats.mean.requires_grad
    live = class_prototypes(features, labels, 3)
    assert live.mean.requires_grad
    bank.update_from(live)
    bank.accumulate(live)
    bank.commit()
    assert not any(buffer.requires_grad for buffer in bank.buffers())
    assert list(bank.parameters()) == []


@pytest.mark.parametrize("kind", [nn.Parameter, nn.Buffer, Tensor.clone])
def test_what_stands_in_the_place_of_a_buffer_is_the_state(kind: Callable[[Tensor], Any]) -> None:
    bank, other = PrototypeBank(3, 5), PrototypeBank(3, 5)
    rows = kind(bank.prototypes)
    del bank.prototypes
    bank.prototypes = rows
    assert bank.state.prototypes is rows
    for one in (bank, other):
        one.update(*batch(0))
    assert torch.equal(bank.state.prototypes, other.prototypes)


def test_a_parametrized_buffer_is_the_state() -> None:
    bank = PrototypeBank(3, 5)
    bank.update(*batch(0))
    before = bank.prototypes.clone()
    parametrize.register_parametrization(bank, "prototypes", nn.Tanh())
    assert torch.equal(bank.state.prototypes, before.tanh())


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_any_number_is_a_momentum(value: Any) -> None:
    bank = PrototypeBank(1, 1, momentum=value)
    for mean in (2.0, 4.0):
        bank.update_from(ClassPrototypes(torch.tensor([[mean]]), torch.ones(1)))
    assert bank.prototypes.item() == 4 - 2 * float(value)
