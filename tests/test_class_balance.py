"""`balance="class"`: each class an equal part of a contrast, (M18)."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    BiCL,
    bidirectional_contrast,
    labels_to_grid,
    naive,
)
from protocontrast.eager.similarity import Similarity
from protocontrast.functional.maps import WHOLE_CLASS, class_counts, equal_weights, target_counts
from tests.bicl_steps import batch, made
from tests.strategies import label_map, normal, seeds

SIDES = ("source_features", "target_features")
BACKENDS = ["eager", "naive"]
CLASSES = 4


def call_of(seed: int, shape: tuple[int, ...], size: tuple[int, ...], **more: Any) -> Any:
    """Two domains in which class 0 has most pixels and class 3 has only a few."""
    call: dict[str, Any] = {"num_classes": CLASSES, "balance": "class", **more}
    for offset, side in enumerate(("source", "target")):
        call[f"{side}_features"] = normal(seed + offset, shape).requires_grad_()
        labels = label_map(seed + offset, (shape[0], *size), CLASSES)
        rare = label_map(seed + offset + 7, (shape[0], *size), 6) != 5
        labels = torch.where((labels == 3) & rare, 0, labels)
        call[f"{side}_labels"] = labels
    return call


def means_of_classes(losses: Tensor, targets: Tensor, shared: Tensor) -> Tensor:
    """Losses (N, C) of pulling each pixel to each class, with a mass (N, C): mean of class means.

    A class of n < 20 pixels is n / 20 of a class.
    """
    total, number = losses.sum() * 0, 0.0
    for c in range(targets.shape[1]):
        n = float(targets[:, c].sum())
        if bool(shared[c]) and n:
            share = min(n / 20, 1.0)
            total = total + share * (losses[:, c] * targets[:, c]).sum() / n
            number += share
    return total / (number or 1)


def direction(
    moved: tuple[Tensor, Tensor, Tensor], fixed: tuple[Tensor, Tensor, Tensor], call: Any
) -> Tensor:
    """One direction of one pair, from features (N, D), labels (N,) and targets (N, C) of both."""
    means, present = [], []
    for features, labels, _ in (moved, fixed):
        chosen = [features[labels == c] for c in range(CLASSES)]
        present.append(torch.tensor([len(rows) > 0 for rows in chosen]))
        means.append(torch.stack([rows.sum(dim=0) / max(len(rows), 1) for rows in chosen]))
    unit = torch.nn.functional.normalize
    scores = unit(moved[0], dim=1) @ unit(means[1], dim=1).t() / call["temperature"]
    lowest = -1 / call["temperature"] if call["absent"] == "floor" else -torch.inf
    scores = torch.where(present[1], scores, lowest)
    losses = -torch.log_softmax(scores, dim=1)
    losses = torch.where(present[1], losses, 0)
    return means_of_classes(losses, moved[2], present[0] & present[1])


def by_hand(call: Any) -> tuple[Tensor, Tensor]:
    """Target to source and source to target."""
    domains = []
    for side in ("source", "target"):
        features, labels = call[f"{side}_features"], call[f"{side}_labels"]
        grid, counts = labels, (labels[:, None] == torch.arange(CLASSES)[:, None, None]).double()
        if labels.shape[1:] != features.shape[2:]:
            size = (features.shape[2], features.shape[3])
            grid = labels_to_grid(labels, size)
            counts = labels_to_grid(labels, size, mode="counts", num_classes=CLASSES).double()
        rows = (features.movedim(1, -1), grid[..., None], counts.movedim(1, -1))
        domains.append([each.flatten(1, -2) for each in rows])
    images = range(len(domains[0][0]))
    pairs = [[i] for i in images] if call["pairwise"] else [list(images)]
    found: list[tuple[Tensor, Tensor]] = []
    for pair in pairs:
        source, target = (
            (rows[pair].flatten(0, 1), labels[pair].flatten(), counts[pair].flatten(0, 1))
            for rows, labels, counts in domains
        )
        found.append((direction(target, source, call), direction(source, target, call)))
    to_source, to_target = zip(*found, strict=True)
    return torch.stack(to_source).mean(), torch.stack(to_target).mean()


@given(data=st.data())
def test_it_is_the_mean_of_the_means_of_classes(data: st.DataObject) -> None:
    grid = data.draw(st.sampled_from([(9, 11), (3, 4)]))
    size = data.draw(st.sampled_from([grid, (18, 25)]))
    call = call_of(
        data.draw(seeds), (2, 5, *grid), size, absent=data.draw(st.sampled_from(["mask", "floor"])),
        pairwise=data.draw(st.booleans()), temperature=data.draw(st.sampled_from([0.1, 0.7])),
        backend=data.draw(st.sampled_from(BACKENDS)),
    )  # fmt: skip
    leaves = [call[side] for side in SIDES]
    found = bidirectional_contrast(**call)
    expected = by_hand(call)
    torch.testing.assert_close(
        (found.target_to_source, found.source_to_target), expected, rtol=1e-9, atol=1e-9
    )
    upstream = (
        0.3 * found.target_to_source + found.source_to_target,
        0.3 * expected[0] + expected[1],
    )
    gradients = [torch.autograd.grad(loss, leaves) for loss in upstream]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_the_oracle_can_tell_it_from_the_mean_over_pixels() -> None:
    call = call_of(3, (2, 5, 9, 11), (9, 11), absent="mask", pairwise=False, temperature=0.1)
    expected = by_hand(call)
    for balance, close in (("class", True), ("pixel", False)):
        found = bidirectional_contrast(**{**call, "balance": balance})
        assert (abs(found.target_to_source - expected[0]) < 1e-6) == close


@given(data=st.data())
def test_weights_are_those_of_naive(data: st.DataObject) -> None:
    seed, pixels = data.draw(seeds), data.draw(st.sampled_from([0, 1, 30, 300]))
    labels = label_map(seed, (1, pixels), CLASSES)
    one_hot = (labels[:, None] == torch.arange(CLASSES)[:, None]).double()
    shared = torch.rand(CLASSES, generator=torch.Generator().manual_seed(seed)) < 0.7
    for targets, soft in ((labels, one_hot), (2.5 * one_hot, 2.5 * one_hot)):
        counts = target_counts(targets, CLASSES, torch.ones(0, dtype=torch.float64))[0]
        found = torch.where(shared, equal_weights(counts), 0)
        expected = naive.equal_weights(soft[0].t(), shared, WHOLE_CLASS)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def lone(pixels: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Rows along the axis of their class, so many of each."""
    labels = torch.tensor([c for c, number in pixels.items() for _ in range(number)])
    return torch.eye(3, dtype=torch.float64)[labels], labels


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rare_class_counts_by_its_pixels(backend: str) -> None:
    """90 pixels, 20 and 5: one, one and a quarter of a class; the last two lie off their axis."""
    features, labels = lone({0: 90, 1: 20, 2: 5})
    rows = torch.where((labels > 0)[:, None], features.roll(1, dims=1), features)
    known = {"source_prototypes": torch.eye(3, dtype=torch.float64), "temperature": 1.0}
    found = {
        balance: bidirectional_contrast(
            features, labels, rows, labels, num_classes=3, pairwise=False, balance=balance,
            backend=backend, **known,
        ).target_to_source.item()
        for balance in ("pixel", "class")
    }  # fmt: skip
    right, wrong = math.log(1 + 2 / math.e), math.log(math.e + 2)
    assert found["pixel"] == pytest.approx((90 * right + 25 * wrong) / 115, rel=1e-9)
    assert found["class"] == pytest.approx((right + wrong + 0.25 * wrong) / 2.25, rel=1e-9)


def test_more_pixels_of_a_class_change_nothing() -> None:
    few, many = lone({0: 20, 1: 30, 2: 24}), lone({0: 20, 1: 30, 2: 480})
    known = {"num_classes": 3, "pairwise": False, "balance": "class"}
    prototypes = {"source_prototypes": normal(1, (3, 3)), "target_prototypes": normal(2, (3, 3))}
    found = [
        bidirectional_contrast(*domain, *domain, **known, **prototypes) for domain in (few, many)
    ]
    torch.testing.assert_close(*found)


def test_classes_of_one_size_are_the_mean_over_pixels() -> None:
    features, labels = lone({0: 25, 1: 25, 2: 25})
    features = features + normal(3, (75, 3))
    call = {"num_classes": 3, "pairwise": False}
    found = [
        bidirectional_contrast(features, labels, features + 1, labels, balance=balance, **call)
        for balance in ("pixel", "class")
    ]
    torch.testing.assert_close(*found)


def several(seed: int, kind: str) -> tuple[list[Tensor], list[Tensor]]:
    """Maps two times as high and wide, so that some classes have 20 pixels; and their features."""
    maps = [
        value.repeat(1, *[1] * (value.dim() - 3), 2, 2)
        for value in batch(seed, kind)
        if value is not None
    ]
    leaves = [maps[0].float().requires_grad_(), maps[2].float().requires_grad_()]
    return [leaves[0], maps[1], leaves[1], *maps[3:]], leaves


def stepped(bicl: BiCL, seed: int, kind: str) -> list[Tensor]:
    """What a step returns, and the gradients of both domains."""
    domains, leaves = several(seed, kind)
    out = bicl(*domains)
    return [*out, *torch.autograd.grad(out.loss, leaves)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_a_step_of_bicl(bank_update: str, backend: str) -> None:
    """Labels on the grid, whose gradient is scaled by class, and their counts; against `naive`."""
    settings = {"balance": "class", "bank_update": bank_update}
    one, plain = made(backend=backend, **settings), made(backend="naive", **settings)
    for seed, kind in enumerate(["grid", "grid", "image"]):
        found, expected = (stepped(bicl, seed, kind) for bicl in (one, plain))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(gradient.any() for gradient in found[-2:])


@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_bicl_reads_the_features_of_grid_labels_once(
    bank_update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bicl = made(balance="class", bank_update=bank_update)
    stepped(bicl, 0, "grid")
    domains, leaves = several(1, "grid")
    loss = bicl(*domains).loss
    monkeypatch.setattr(Similarity, "scores", None)
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, leaves))


@given(st.lists(st.integers(-2, 6), max_size=40), st.integers(1, 5))
def test_class_counts_are_those_of_a_loop(values: list[int], num_classes: int) -> None:
    labels = torch.tensor([values, values[::-1]], dtype=torch.int64)
    expected = [[values.count(c) for c in range(num_classes)]] * 2
    assert class_counts(labels, num_classes).tolist() == expected
