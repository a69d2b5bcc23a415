"""Facts about label transfer that any right implementation shows."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from torch import Tensor

from protocontrast import fuse_labels, transfer_labels
from tests.strategies import label_map, normal, seeds


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
