"""`prototype_pull` and `spread`: loops, known values and the released forms."""

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from protocontrast import prototype_pull, spread
from tests.strategies import label_map, normal, rows_of, seeds, weights


def cosine(one: list[float], other: list[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths


@given(seed=seeds)
def test_pull_by_loops(seed: int) -> None:
    features, prototypes = normal(seed, (2, 5, 3, 2)), normal(seed + 1, (4, 5))
    labels = label_map(seed, (2, 3, 2), 4)
    weight = weights(seed, (2, 3, 2), torch.float64)
    present = torch.tensor([True, True, seed % 2 == 0, True])
    rows = rows_of(features).tolist()
    losses, total = 0.0, 0.0
    for row, label, w in zip(
        rows, labels.flatten().tolist(), weight.flatten().tolist(), strict=True
    ):
        if label != 255 and present[label]:
            losses += w * (1 - cosine(row, prototypes[label].tolist())) ** 2
            total += w
    found = prototype_pull(features, labels, prototypes, present=present, pixel_weight=weight)
    assert found.item() == pytest.approx(losses / total if total else 0.0)
    summed = prototype_pull(
        features, labels, prototypes, present=present, pixel_weight=weight, reduction="sum"
    )
    assert summed.item() == pytest.approx(losses)


def test_pull_along_at_a_right_angle_and_opposite() -> None:
    prototypes = torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    features = torch.tensor([[0.0, 0.1], [7.0, 0.0], [0.0, -2.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    assert prototype_pull(features, labels, prototypes, reduction="none").tolist() == [0, 1, 4]


def test_pull_as_protoseg_has_it() -> None:
    """There on unit features and the logits of all C * M prototypes, here on what it is given."""
    features, rows = normal(0, (2, 6, 4, 3)).requires_grad_(), normal(1, (8, 6)).requires_grad_()
    labels = label_map(2, (2, 4, 3), 8)
    logits = normalize(rows_of(features), dim=1) @ normalize(rows, dim=1).t()
    valid = labels.flatten() != 255
    picked = logits[valid].gather(1, labels.flatten()[valid][:, None])
    released = (1 - picked).square().mean()
    ours = prototype_pull(features, labels, rows)
    torch.testing.assert_close(ours, released)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (features, rows)),
        torch.autograd.grad(released, (features, rows)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
        assert mine.abs().max() > 0


def test_pull_to_absent_prototypes_is_no_pull() -> None:
    features = normal(0, (5, 3)).requires_grad_()
    rows = torch.full((2, 3), torch.nan, dtype=torch.float64)
    loss = prototype_pull(features, label_map(0, (5,), 2), rows, present=torch.zeros(2).bool())
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("toward", ["uniform", "released"])
@pytest.mark.parametrize("temperature", [100.0, 0.1])
def test_spread_as_sepico_has_it(toward: str, temperature: float) -> None:
    """Features of unit length, raw means; equal but for the sign that was asked for."""
    raw, prototypes = normal(0, (2, 8, 4, 3)).abs().requires_grad_(), normal(1, (19, 8)).abs()
    unit = normalize(raw, dim=1)
    mean = rows_of(unit).mean(dim=0, keepdim=True)
    logits = mean @ prototypes.t() / temperature
    released = log_softmax(logits, dim=1).sum() / (19 * math.log(19))
    ours = spread(unit, None, prototypes, toward=toward, temperature=temperature)
    sign = 1 if toward == "released" else -1
    torch.testing.assert_close(ours, sign * released)
    gradients = [torch.autograd.grad(loss, raw, retain_graph=True)[0] for loss in (ours, released)]
    torch.testing.assert_close(gradients[0], sign * gradients[1])
    assert gradients[0].abs().max() > 0


def test_spread_at_uniform() -> None:
    assert 19 * math.log(19) == pytest.approx(55.944341, abs=1e-6)
    equal = normal(0, (1, 8)).expand(19, 8)
    features = normal(1, (50, 8))
    assert spread(features, None, equal, toward="released").item() == pytest.approx(-1)
    assert spread(features, None, equal, toward="uniform").item() == pytest.approx(1)


@given(seed=seeds)
def test_the_released_spread_is_largest_at_uniform(seed: int) -> None:
    features, prototypes = normal(seed, (6, 3)), normal(seed + 1, (4, 3))
    assert spread(features, None, prototypes, toward="released").item() <= -1
    assert spread(features, None, prototypes, toward="uniform").item() >= 1


def after_descent(toward: str) -> Tensor:
    """Shares of the prototypes after some steps down the term."""
    features = torch.tensor([[0.3, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    for _ in range(50):
        loss = spread(features, None, torch.eye(3).double(), toward=toward, temperature=1.0)
        (gradient,) = torch.autograd.grad(loss, features)
        features = (features - gradient).detach().requires_grad_()
    return features.detach().softmax(dim=1)[0]


def test_the_sign_says_where_the_mean_goes() -> None:
    torch.testing.assert_close(
        after_descent("uniform"), torch.full((3,), 1 / 3).double(), atol=1e-3, rtol=0
    )
    assert after_descent("released").max() > 0.9


def test_spread_reads_labelled_pixels_and_present_classes() -> None:
    features, prototypes = normal(0, (2, 3, 4)), normal(1, (5, 3))
    labels = label_map(2, (2, 4), 5)
    features[0, :, labels[0] == 255] = torch.nan
    features[1, :, labels[1] == 255] = torch.nan
    present = torch.tensor([True, False, True, True, False])
    prototypes[~present] = torch.nan
    found = spread(features, labels, prototypes, toward="uniform", present=present)
    rows = rows_of(features)[labels.flatten() != 255]
    expected = spread(rows, None, prototypes[present], toward="uniform")
    torch.testing.assert_close(found, expected)
    shares = (rows.mean(dim=0) @ prototypes[present].t() / 0.1).log_softmax(dim=0)
    torch.testing.assert_close(expected, -shares.sum() / (3 * math.log(3)))


@pytest.mark.parametrize("case", ["no pixel", "no label", "one class", "no class"])
def test_spread_over_nothing_is_zero(case: str) -> None:
    features = normal(0, (0 if case == "no pixel" else 4, 3)).requires_grad_()
    labels = torch.full((4,), 255) if case == "no label" else None
    present = torch.tensor([case != "no class", case not in ("no class", "one class")])
    loss = spread(features, labels, normal(1, (2, 3)), toward="released", present=present)
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == 0
    assert not gradient.any()
