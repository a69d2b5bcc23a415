"""`entropy`, `mrkld`, `similarity_kl` and `symmetric_cross_entropy`: loops and known values."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, nll_loss, one_hot

from protocontrast import entropy, mrkld, similarity_kl, symmetric_cross_entropy
from tests.strategies import label_map, laid_out, layouts, normal, seeds, weights

CASES = st.tuples(seeds, st.sampled_from([1, 2, 5, 19]), layouts)


def shares_of(row: list[float]) -> list[float]:
    total = sum(math.exp(z) for z in row)
    return [math.exp(z) / total for z in row]


def entropy_of(row: list[float]) -> float:
    return -sum(p * math.log(p) for p in shares_of(row) if p > 0)


def mrkld_of(row: list[float]) -> float:
    return -sum(math.log(p) for p in shares_of(row)) / len(row)


def divergence_of(row: list[float], target: list[float]) -> float:
    pairs = zip(shares_of(target), shares_of(row), strict=True)
    return sum(q * (math.log(q) - math.log(p)) for q, p in pairs)


def symmetric_of(row: list[float], label: int, one: float, two: float, floor: float) -> float:
    shares = shares_of(row)
    estimate = [1.0 if c == label else floor for c in range(len(row))]
    reverse = -sum(p * math.log(q) for p, q in zip(shares, estimate, strict=True))
    return one * -math.log(shares[label]) + two * reverse


def weighted_mean(losses: list[float], weight: list[float]) -> float:
    total = sum(weight)
    return sum(w * loss for w, loss in zip(weight, losses, strict=True)) / total if total else 0.0


@given(case=CASES)
def test_losses_by_loops(case: tuple[int, int, str]) -> None:
    seed, classes, layout = case
    logits = laid_out(2 * normal(seed, (2, classes, 3, 2)), layout)
    target = 2 * normal(seed + 1, (2, classes, 3, 2))
    labels = label_map(seed + 2, (2, 3, 2), classes)
    weight = weights(seed + 3, (2, 3, 2), torch.float64)
    rows = logits.movedim(1, -1).flatten(0, 2).tolist()
    others = target.movedim(1, -1).flatten(0, 2).tolist()
    hard, given_weight = labels.flatten().tolist(), weight.flatten().tolist()
    kept = [0.0 if y == 255 else w for y, w in zip(hard, given_weight, strict=True)]
    expected = {
        "entropy": weighted_mean([entropy_of(row) for row in rows], given_weight),
        "mrkld": weighted_mean([mrkld_of(row) for row in rows], given_weight),
        "similarity_kl": weighted_mean(
            [divergence_of(*pair) for pair in zip(rows, others, strict=True)], given_weight
        ),
        "symmetric_cross_entropy": weighted_mean(
            [
                0.0 if label == 255 else symmetric_of(row, label, 0.3, 0.7, 1e-3)
                for row, label in zip(rows, hard, strict=True)
            ],
            kept,
        ),
    }
    settings = {"cross_entropy_weight": 0.3, "reverse_weight": 0.7, "floor": 1e-3}
    found = {
        "entropy": entropy(logits, pixel_weight=weight),
        "mrkld": mrkld(logits, pixel_weight=weight),
        "similarity_kl": similarity_kl(logits, target, pixel_weight=weight),
        "symmetric_cross_entropy": symmetric_cross_entropy(
            logits, labels, pixel_weight=weight, **settings
        ),
    }
    for name, value in found.items():
        assert value.item() == pytest.approx(expected[name], abs=1e-10), name


@pytest.mark.parametrize(("classes", "most"), [(19, 2.944439), (16, 2.772589), (13, 2.564949)])
def test_entropy_goes_from_zero_to_the_logarithm_of_the_classes(classes: int, most: float) -> None:
    assert entropy(torch.zeros(1, classes)).item() == pytest.approx(most)
    certain = 200.0 * one_hot(torch.tensor([2]), classes)
    assert entropy(certain).item() == 0
    some = entropy(3 * normal(0, (500, classes)), reduction="none")
    assert 0 < some.min() < some.max() < most


def test_a_second_softmax_can_only_move_between_two_and_three() -> None:
    """What released trainers minimise, beside the entropy of the same predictions."""

    def released(logits: Tensor) -> float:
        shares = logits.softmax(dim=1)
        return -(shares * log_softmax(shares, dim=1)).sum(dim=1).item()

    certain = 200.0 * one_hot(torch.tensor([2]), 19)
    assert released(certain) == pytest.approx(math.log(math.e + 18) - 1)
    assert released(certain) == pytest.approx(2.031016, abs=1e-6)
    assert released(torch.zeros(1, 19)) == pytest.approx(2.944439, abs=1e-6)
    for seed in range(20):
        assert 2.031016 <= released(5 * normal(seed, (1, 19))) <= 2.944439


def test_mrkld_is_least_at_uniform() -> None:
    assert mrkld(torch.full((1, 19), 3.0)).item() == pytest.approx(math.log(19))
    assert (mrkld(normal(0, (100, 19)), reduction="none") > math.log(19)).all()
    logits = torch.zeros(1, 19, requires_grad=True)
    (gradient,) = torch.autograd.grad(mrkld(logits), logits)
    torch.testing.assert_close(gradient, torch.zeros(1, 19))


def test_reverse_cross_entropy_of_uniform_and_of_perfect_predictions() -> None:
    label = torch.tensor([3])
    reverse = {"cross_entropy_weight": 0.0, "reverse_weight": 1.0}
    even = symmetric_cross_entropy(torch.zeros(1, 19), label, **reverse)
    assert -math.log(1e-4) == pytest.approx(9.210340, abs=1e-6)
    assert even.item() == pytest.approx(18 / 19 * 9.210340, abs=1e-5)
    assert even.item() == pytest.approx(8.725586, abs=1e-5)
    perfect = 200.0 * one_hot(label, 19)
    assert symmetric_cross_entropy(perfect, label, **reverse).item() == 0
    wrong = 200.0 * one_hot(label + 1, 19)
    assert symmetric_cross_entropy(wrong, label, **reverse).item() == pytest.approx(9.210340)


def test_symmetric_cross_entropy_as_proda_has_it() -> None:
    logits = normal(0, (2, 19, 4, 5)).requires_grad_()
    labels = label_map(1, (2, 4, 5), 19)
    valid = labels != 255
    released = 0.1 * nll_loss(log_softmax(logits, dim=1), labels, ignore_index=255)
    hot = one_hot(torch.where(valid, labels, 0), 19).movedim(-1, 1).double().clamp(1e-4, 1)
    reverse = -(logits.softmax(dim=1) * hot.log()).sum(dim=1)
    released = released + 1.0 * (reverse * valid).sum() / valid.sum()
    assert_same(symmetric_cross_entropy(logits, labels), released, logits)


def test_consistency_as_proda_has_it() -> None:
    """Over N * C * h * w elements there, over pixels here."""
    strong, weak = -normal(0, (2, 19, 4, 5)).abs(), -normal(1, (2, 19, 4, 5)).abs()
    strong.requires_grad_()
    released = kl_div(log_softmax(strong, dim=1), weak.softmax(dim=1), reduction="none").mean()
    assert_same(similarity_kl(strong, weak) / 19, released, strong)


def test_mrkld_on_labelled_pixels_as_proda_has_it() -> None:
    logits = normal(0, (2, 19, 4, 5)).requires_grad_()
    labels = label_map(1, (2, 4, 5), 19)
    valid = (labels != 255).double()
    per_pixel = -log_softmax(logits, dim=1).mean(dim=1)
    released = (per_pixel * valid).sum() / valid.sum()
    assert_same(mrkld(logits, pixel_weight=valid), released, logits)


def assert_same(ours: Tensor, released: Tensor, leaf: Tensor) -> None:
    """Value and gradient."""
    assert ours.item() == pytest.approx(released.item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss in (ours, released)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_a_view_that_lacks_a_class_is_infinitely_far() -> None:
    lacking = torch.tensor([[0.0, -torch.inf]])
    assert similarity_kl(lacking, torch.zeros(1, 2)).item() == math.inf
    assert similarity_kl(torch.zeros(1, 2), lacking).item() == pytest.approx(math.log(2))


def test_the_target_view_gets_no_gradient() -> None:
    learns, teaches = (normal(seed, (4, 3)).requires_grad_() for seed in (0, 1))
    similarity_kl(learns, teaches).backward()
    assert learns.grad is not None
    assert teaches.grad is None


@pytest.mark.parametrize("name", ["cross_entropy_weight", "reverse_weight"])
def test_either_role_can_be_switched_off(name: str) -> None:
    logits, labels = normal(0, (6, 4)), label_map(0, (6,), 4, "full")
    settings: dict[str, Any] = {"cross_entropy_weight": 1.0, "reverse_weight": 1.0, name: 0}
    found = symmetric_cross_entropy(logits, labels, **settings)
    share = logits.softmax(dim=1).gather(1, labels[:, None])
    plain = {"cross_entropy_weight": -math.log(1e-4) * (1 - share), "reverse_weight": -share.log()}
    torch.testing.assert_close(found, plain[name].mean())
