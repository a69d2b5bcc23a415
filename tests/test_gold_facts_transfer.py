"""Facts about banks, calibration and label transfer that any right implementation shows."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    ClassPrototypes,
    DomainBias,
    PrototypeBank,
    class_prototypes,
    fuse_labels,
    naive,
    transfer_labels,
)
from tests.strategies import label_map, normal, seeds

EVERY = torch.ones(2, dtype=torch.bool)


def stats_of(mean: Tensor, count: float = 1.0) -> ClassPrototypes:
    return ClassPrototypes(mean, torch.full((len(mean),), count))


@pytest.mark.parametrize(("momentum", "half_life"), [(0.9, 6.6), (0.99, 69), (0.999, 693)])
def test_a_moving_average_from_zero_halves_its_gap(momentum: float, half_life: float) -> None:
    assert math.log(0.5) / math.log(momentum) == pytest.approx(half_life, rel=0.01)
    value, batch = torch.zeros(2, 1).double(), torch.tensor([[1.0], [-3.0]]).double()
    for _ in range(round(half_life)):
        value = naive.moving_average(value, batch, momentum, EVERY)
    torch.testing.assert_close(value, batch * (1 - momentum ** round(half_life)))
    torch.testing.assert_close(value, batch * 0.5, rtol=0.05, atol=0)


def test_after_a_hundred_steps() -> None:
    bias = DomainBias(2, 1, momentum=0.99, warmup="zero")
    target = torch.tensor([[1.0], [-3.0]])
    for _ in range(100):
        bias.update(torch.zeros(2, 1), target, EVERY)
    torch.testing.assert_close(bias.bias / target, torch.full((2, 1), 0.633968), rtol=1e-5, atol=0)


def test_the_first_batch_is_copied_and_absent_classes_keep_their_bits() -> None:
    bank = PrototypeBank(3, 4, momentum=0.99)
    first = torch.where(torch.tensor([[True], [False], [True]]), normal(0, (3, 4)), 0).float()
    bank.update_from(ClassPrototypes(first, torch.tensor([5.0, 0.0, 2.0])))
    assert torch.equal(bank.prototypes, first)
    assert bank.present.tolist() == [True, False, True]
    bank.update_from(ClassPrototypes(normal(1, (3, 4)).float(), torch.tensor([0.0, 1.0, 0.0])))
    assert torch.equal(bank.prototypes[[0, 2]], first[[0, 2]])


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_momentum(momentum: float) -> None:
    bank = PrototypeBank(2, 3, momentum=momentum)
    rows = [normal(seed, (2, 3), torch.float32) for seed in range(3)]
    for row in rows:
        bank.update_from(stats_of(row))
    assert torch.equal(bank.prototypes, rows[0] if momentum else rows[-1])


@given(seed=seeds, cuts=st.lists(st.integers(1, 39), max_size=4), reverse=st.booleans())
def test_a_cumulative_bank_is_the_pooled_mean(seed: int, cuts: list[int], reverse: bool) -> None:
    features, labels = normal(seed, (40, 3), torch.float32), label_map(seed, (40,), 4)
    bank = PrototypeBank(4, 3, rule="cumulative")
    edges = [0, *sorted(set(cuts)), 40]
    parts = list(pairwise(edges))
    for start, stop in reversed(parts) if reverse else parts:
        bank.update(features[start:stop], labels[start:stop])
    pooled = class_prototypes(features, labels, 4)
    torch.testing.assert_close(bank.prototypes, pooled.mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(bank.count.float(), pooled.count)


def test_renormalised_rows_have_length_one_and_unseen_rows_stay_zero() -> None:
    bank = PrototypeBank(3, 4, normalize="prototypes")
    for seed in range(3):
        count = torch.tensor([3.0, 1.0, 0.0])
        bank.update_from(ClassPrototypes(normal(seed, (3, 4), torch.float32) * 9, count))
    torch.testing.assert_close(bank.prototypes.norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))


def test_parts_pool_by_sums_not_by_means() -> None:
    features, labels = normal(0, (30, 3), torch.float32), torch.zeros(30, dtype=torch.int64)
    parts = [class_prototypes(features[part], labels[part], 1) for part in (slice(4), slice(4, 30))]
    bank = PrototypeBank(1, 3)
    for part in parts:
        bank.accumulate(part)
    bank.commit()
    torch.testing.assert_close(bank.prototypes, class_prototypes(features, labels, 1).mean)
    mean_of_means = (parts[0].mean + parts[1].mean) / 2
    assert (bank.prototypes - mean_of_means).abs().max() > 0.01


def test_the_bias_closes_the_gap() -> None:
    source, shift = normal(0, (2, 3), torch.float32), normal(1, (2, 3), torch.float32)
    at_once = DomainBias(2, 3, momentum=0.0)
    at_once.update(source, source + shift, EVERY)
    torch.testing.assert_close(at_once.calibrate(source), source + shift)
    gradual = DomainBias(2, 3, momentum=0.8)
    for step in range(1, 6):
        gradual.update(source, source + shift, EVERY)
        gap = source + shift - gradual.calibrate(source)
        torch.testing.assert_close(gap, 0.8**step * shift, rtol=1e-4, atol=1e-6)


def test_calibration_repairs_the_transfer() -> None:
    """Four clusters on a line at distance 2, shifted by 1.4: the next class is nearer."""
    source = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    labels = torch.arange(400) % 4
    target = source[labels] + 1.4 + 0.1 * normal(0, (400, 1), torch.float32).clamp(-3, 3)
    means = class_prototypes(target, labels, 4).mean
    bias = DomainBias(4, 1, momentum=0.0)
    bias.update(source, means, torch.ones(4, dtype=torch.bool))

    def accuracy(prototypes: Tensor) -> float:
        found = transfer_labels(target, prototypes, similarity="euclidean", threshold=0.0).labels
        return (found == labels).float().mean().item()

    assert accuracy(source) == 0.25
    assert accuracy(bias.calibrate(source)) == 1.0


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 100.0])
def test_prototypes_transfer_to_themselves(temperature: float) -> None:
    prototypes = normal(0, (19, 8), torch.float32)
    found = transfer_labels(prototypes, prototypes, temperature=temperature, threshold=0.0)
    assert torch.equal(found.labels, torch.arange(19))
    features = normal(1, (50, 8), torch.float32)
    warm, cold = (
        transfer_labels(features, prototypes, temperature=t, threshold=0.0)
        for t in (temperature, 0.3)
    )
    assert torch.equal(warm.labels, cold.labels)
    assert not torch.equal(warm.confidence, cold.confidence)


@pytest.mark.parametrize(("num_classes", "margin"), [(19, 0.428), (16, 0.409), (13, 0.387)])
def test_the_margin_that_a_confidence_of_eight_tenths_needs(
    num_classes: int, margin: float
) -> None:
    assert 0.1 * math.log(0.8 * (num_classes - 1) / 0.2) == pytest.approx(margin, abs=5e-4)
    prototypes = torch.eye(num_classes + 1, dtype=torch.float64)[:-1]
    for distance, label in [(margin - 0.001, 255), (margin + 0.001, 0)]:
        feature = torch.full((1, num_classes + 1), 0.05, dtype=torch.float64)
        feature[0, 0] += distance
        feature[0, -1] = (1 - feature[0, :-1].square().sum()).sqrt()
        found = transfer_labels(feature, prototypes, temperature=0.1, threshold=0.8)
        assert found.labels.item() == label


@given(seed=seeds)
def test_thresholds_only_remove_labels(seed: int) -> None:
    features, prototypes = normal(seed, (40, 4)), normal(seed + 1, (5, 4))
    thresholds = [0.0, 0.3, 0.5, 0.8, 0.99, math.inf]
    maps = [transfer_labels(features, prototypes, threshold=t).labels for t in thresholds]
    assert (maps[0] != 255).all()
    assert (maps[-1] == 255).all()
    for lower, higher in pairwise(maps):
        assert ((higher == lower) | (higher == 255)).all()


def test_one_present_class_is_certain() -> None:
    present = torch.tensor([False, True])
    rows = normal(0, (2, 4), torch.float32)
    found = transfer_labels(normal(1, (9, 4), torch.float32), rows, present=present, threshold=1.0)
    assert (found.labels == 1).all()
    assert (found.confidence == 1).all()


@given(seed=seeds)
def test_fusing_keeps_what_is_valid(seed: int) -> None:
    base, other = label_map(seed, (6, 7), 3), label_map(seed + 1, (6, 7), 3)
    fused = fuse_labels(base, other)
    assert torch.equal(fuse_labels(base, base), base)
    assert torch.equal(fused[base != 255], base[base != 255])
    assert torch.equal(fused[base == 255], other[base == 255])
    # Class 0 is a class: neither a missing label nor a false one.
    assert (fused[base == 0] == 0).all()
    assert (fused[(base == 255) & (other == 0)] == 0).all()


def test_only_the_cosine_forgets_the_length() -> None:
    features, prototypes = normal(0, (60, 4), torch.float32), normal(1, (5, 4), torch.float32)
    lengths = torch.linspace(0.01, 50, 60)[:, None]

    def maps(similarity: str) -> list[Tensor]:
        return [
            transfer_labels(rows, prototypes, similarity=similarity, threshold=-math.inf).labels
            for rows in (features, features * lengths)
        ]

    assert torch.equal(*maps("cosine"))
    assert not torch.equal(*maps("euclidean"))
