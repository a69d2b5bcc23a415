"""`LogitBalance`: tables that follow the logits, and the way from them to the anchors."""

import copy
from statistics import NormalDist
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import LogitBalance
from protocontrast.bank import mixtures
from protocontrast.bank.mixtures import Mixtures
from tests.strategies import NAN, label_map, normal, seeds
from tests.test_mixtures import FEW, below, inverse_of, mixtures_of, rows_of

NAMES = ("weight", "mean", "variance")


def balance_with(seed: int, classes: int = 3, components: int = 2, **how: Any) -> LogitBalance:
    """A module whose tables are random, as if seen."""
    balance = LogitBalance(classes, components, **how).double()
    for name, part in zip(NAMES, mixtures_of(seed, 2, classes, classes, components), strict=True):
        getattr(balance, name).copy_(part)
    for name, part in zip(NAMES, mixtures_of(seed + 5, 2, components), strict=True):
        getattr(balance, f"anchor_{name}").copy_(part)
    balance.count += 1
    return balance


@FEW
@given(seed=seeds, components=st.integers(1, 3), domain=st.sampled_from(["source", "target"]))
def test_delta_by_loops(seed: int, components: int, domain: Any) -> None:
    balance = balance_with(seed, components=components)
    logits, labels = normal(seed + 9, (6, 3)) * 3, label_map(seed, (6,), 3)
    found = balance.delta(logits, labels, domain=domain)
    which = ["source", "target"].index(domain)
    tables = Mixtures(*(getattr(balance, name)[which] for name in NAMES))
    anchors = Mixtures(*(getattr(balance, f"anchor_{name}") for name in NAMES))
    for i, label in enumerate(labels.tolist()):
        for c in range(3):
            if label == 255:
                assert found[i, c] == 0
                continue
            z = logits[i, c].item()
            share = min(max(below(z, *rows_of(tables, label, c)), 0.01), 0.99)
            moved = inverse_of(share, *rows_of(anchors, int(label != c)))
            assert found[i, c].item() == pytest.approx(moved - z, abs=1e-3)


def test_no_difference_where_the_class_has_the_anchors_distribution() -> None:
    balance = balance_with(0, components=3)
    for name in NAMES:
        anchor, table = getattr(balance, f"anchor_{name}"), getattr(balance, name)
        own = torch.eye(3, dtype=torch.bool)[:, :, None]
        table.copy_(torch.where(own, anchor[0], anchor[1]).expand_as(table))
    logits, labels = normal(3, (2, 3, 500)) * 2, label_map(4, (2, 500), 3)
    delta = balance.delta(logits, labels)
    kinds = (labels[:, None] != torch.arange(3)[:, None]).long()
    anchors = Mixtures(*(getattr(balance, f"anchor_{name}") for name in NAMES))
    shares = torch.stack(
        [mixtures.distribution(logits, Mixtures(*(p[k] for p in anchors))) for k in (0, 1)]
    )
    share = torch.where(kinds == 0, shares[0], shares[1])
    inside = (share > 0.0101) & (share < 0.9899)
    assert inside.sum() > 1000
    assert delta[inside].abs().max() < 1e-5


def test_one_component_is_a_shift_and_a_stretch() -> None:
    balance = balance_with(0, classes=2, components=1)
    logits, labels = normal(1, (40, 2)) * 0.5, torch.arange(40) % 2
    logits = logits + balance.mean[0, labels, :, 0]
    moved = logits + balance.delta(logits, labels)
    for i, label in enumerate(labels.tolist()):
        for c in range(2):
            mean, spread = balance.mean[0, label, c, 0], balance.variance[0, label, c, 0].sqrt()
            kind = int(label != c)
            standard = ((logits[i, c] - mean) / spread).clamp(
                *(NormalDist().inv_cdf(u) for u in (0.01, 0.99))
            )
            expected = (
                balance.anchor_mean[kind, 0] + balance.anchor_variance[kind, 0].sqrt() * standard
            )
            assert moved[i, c].item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_first_fit_of_one_component_is_mean_and_variance() -> None:
    balance = LogitBalance(2, 1, pixels=5).double()
    logits, labels = normal(0, (10, 2)), torch.arange(10) % 2
    balance.update(logits, labels)
    for c in range(2):
        rows = logits[labels == c]
        torch.testing.assert_close(balance.mean[0, c, :, 0], rows.mean(dim=0))
        torch.testing.assert_close(balance.variance[0, c, :, 0], rows.var(dim=0, unbiased=False))
    own, others = logits[range(10), labels], logits[range(10), 1 - labels]
    torch.testing.assert_close(balance.anchor_mean[:, 0], torch.stack([own.mean(), others.mean()]))
    assert balance.weight[0].eq(1).all()
    assert not balance.weight[1].any()
    assert balance.count.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("ramp", [1, 2, 5])
def test_the_table_moves_as_momentum_says(ramp: int) -> None:
    balance = LogitBalance(1, 1, momentum=0.6, ramp=ramp, pixels=3).double()
    label = torch.zeros(3).long()
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 5.0, 3.0]):
        balance.update(torch.full((3, 1), value).double(), label)
        momentum = 0.6 * min(step / ramp, 1)
        expected = momentum * expected + (1 - momentum) * value
        assert balance.mean[0, 0, 0].item() == pytest.approx(expected)
        assert balance.anchor_mean[0, 0].item() == pytest.approx(expected)
    for _ in range(2):
        balance.update(torch.full((3, 1), 9.0).double(), label + 255)
    assert balance.mean[0, 0, 0].item() == pytest.approx(expected)
    balance.update(torch.full((3, 1), 9.0).double(), label)
    assert balance.mean[0, 0, 0].item() == pytest.approx(0.6**3 * expected + (1 - 0.6**3) * 9)


def test_a_class_that_comes_late_starts_from_its_own_fit() -> None:
    balance = LogitBalance(2, 1, momentum=0.6, ramp=1, pixels=3).double()
    rows, labels = torch.full((3, 2), 2.0).double(), torch.zeros(3).long()
    for _ in range(3):
        balance.update(rows, labels)
    balance.update(rows + 5, labels + 1)
    assert balance.mean[0, 1].flatten().tolist() == pytest.approx([7.0, 7.0])


def fitted_by_loops(values: list[float], start: Any) -> list[list[float]]:
    """Three steps of expectation and maximisation, one value after another."""
    weight, mean, variance = start
    for _ in range(3):
        mass, total, square = ([0.0] * len(mean) for _ in range(3))
        for value in values:
            peaks = [
                w * NormalDist(m, v**0.5).pdf(value)
                for w, m, v in zip(weight, mean, variance, strict=True)
            ]
            for k, peak in enumerate(peaks):
                mass[k] += peak / sum(peaks)
                total[k] += peak / sum(peaks) * value
                square[k] += peak / sum(peaks) * value**2
        weight = [m / len(values) for m in mass]
        mean = [t / m for t, m in zip(total, mass, strict=True)]
        variance = [max(s / m - a**2, 1e-6) for s, m, a in zip(square, mass, mean, strict=True)]
    return [weight, mean, variance]


def test_anchors_are_fitted_to_every_labelled_pixel() -> None:
    """However rare its class, and whether or not the class has enough pixels for a table."""
    balance = LogitBalance(3, 2, momentum=0.9, ramp=2, pixels=8).double()
    old: list[list[list[float]]] = []
    for step in range(2):
        logits = normal(step, (2, 3, 30)) * 2 + torch.tensor([5.0, 0.0, -4.0])[:, None]
        # 18 pixels of the first class for one of each other.
        labels = (torch.arange(60).view(2, 30) % 20 - 17).clamp_min(0)
        labels[1, ::5] = 255
        logits[1, 2, 7] = NAN
        balance.update(logits, labels)
        assert (balance.count[0] == 0).any()
        rows, flat = logits.transpose(1, 2).flatten(0, 1), labels.flatten()
        valid = [i for i, c in enumerate(flat.tolist()) if c != 255 and rows[i].isfinite().all()]
        found = []
        for kind in range(2):
            values = [
                rows[i, c].item() for i in valid for c in range(3) if (c != flat[i].item()) == kind
            ]
            assert len(values) == len(valid) * (1, 2)[kind]
            if step:
                start = old[kind]
            else:
                rest = torch.tensor(values).double()
                centre, spread = rest.mean().item(), rest.var(unbiased=False).item()
                middle = NormalDist().inv_cdf(0.75)
                start = [[0.5, 0.5], [centre - middle * spread**0.5, centre + middle * spread**0.5]]
                start.append([(1 - middle**2) * spread] * 2)
            new = fitted_by_loops(values, start)
            momentum = 0.9 * step / 2
            blend = [
                [momentum * a + (1 - momentum) * b for a, b in zip(*pair, strict=True)]
                for pair in zip(start, new, strict=True)
            ]
            for name, part in zip(NAMES, blend, strict=True):
                anchor = getattr(balance, f"anchor_{name}")[kind]
                assert anchor.tolist() == pytest.approx(part, rel=1e-6)
            found.append(blend)
        old = found


def test_an_anchor_waits_for_as_many_logits_as_a_table() -> None:
    balance = LogitBalance(3, 1, pixels=8).double()
    balance.update(normal(0, (7, 3)), torch.zeros(7).long())
    assert (balance.anchor_weight > 0).flatten().tolist() == [False, True]
    assert torch.equal(balance(normal(1, (2, 3)), torch.tensor([0, 1])), normal(1, (2, 3)))


def batch(seed: int, pixels: int = 60) -> tuple[Tensor, Tensor]:
    return normal(seed, (2, 3, pixels), torch.float32) * 2, label_map(seed, (2, pixels), 3, "full")


def test_balancing_brings_classes_together() -> None:
    """The rare class has low logits; afterwards its own logits lie where the anchor's do."""
    logits, labels = batch(0, 600)
    own = labels[:, None] == torch.arange(3)[:, None]
    logits = logits + torch.where(own, torch.tensor([6.0, 4.0, -1.0])[:, None], 0)
    balance = LogitBalance(3, 3, pixels=100, strength=-1.0)
    for _ in range(5):
        balance.update(logits, labels)
    moved = balance(logits, labels)
    means = [moved[:, c][labels == c].mean().item() for c in range(3)]
    before = [logits[:, c][labels == c].mean().item() for c in range(3)]
    assert max(before) - min(before) > 6
    assert max(means) - min(means) < 0.5


def test_samples_are_equal_in_number_spread_and_seeded() -> None:
    balances = [LogitBalance(2, 1, pixels=10, seed=seed).double() for seed in (0, 0, 1)]
    logits = torch.arange(1000.0).double()[:, None].expand(-1, 2)
    labels = (torch.arange(1000) >= 900).long()
    for balance in balances:
        balance.update(logits, labels)
    means = [balance.mean[0, :, 0, 0] for balance in balances]
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])
    for mean in means:
        assert abs(mean[0] - 450) <= 45
        assert abs(mean[1] - 950) <= 5
    balances[0].update(logits, torch.where(labels == 1, 255, labels))
    assert balances[0].count.tolist() == [[2, 1], [0, 0]]


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_what_is_not_finite_keeps_the_class_as_it_was(value: float) -> None:
    balance = LogitBalance(3, 2, pixels=4)
    balance.update(*batch(0))
    before = copy.deepcopy(balance)
    logits, labels = batch(1)
    logits[:, 1] = torch.where(labels == 2, value, logits[:, 1])
    balance.update(logits, labels)
    assert balance.count.tolist() == [[2, 2, 1], [0, 0, 0]]
    for name in NAMES:
        mine, old = getattr(balance, name), getattr(before, name)
        assert torch.equal(mine[0, 2], old[0, 2])
        assert not torch.equal(mine[0, 0], old[0, 0])
        assert getattr(balance, f"anchor_{name}").isfinite().all()


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    balance, (logits, labels) = balance_with(0).float(), batch(3)
    whole, twin = balance.delta(logits, labels), copy.deepcopy(balance)
    twin.update(logits, labels)
    monkeypatch.setattr("protocontrast.bank.logit_balance.TILE", 21)
    torch.testing.assert_close(balance.delta(logits, labels), whole, rtol=1e-6, atol=1e-6)
    balance.update(logits, labels)
    torch.testing.assert_close(balance.anchor_mean, twin.anchor_mean, rtol=1e-6, atol=1e-6)


def test_no_table_no_difference_and_the_identity_gradient() -> None:
    balance, (logits, labels) = LogitBalance(3, 2, pixels=4), batch(0)
    assert torch.equal(balance(logits, labels), logits)
    balance.update(logits, labels, domain="target")
    assert torch.equal(balance(logits, labels, domain="target"), logits)
    balance.update(logits, torch.where(labels == 2, 255, labels))
    leaf = logits.clone().requires_grad_()
    moved = balance(leaf, labels)
    unseen = (labels == 2)[:, None].expand_as(logits)
    assert torch.equal(moved[unseen], logits[unseen])
    assert not torch.equal(moved[~unseen], logits[~unseen])
    upstream = normal(5, tuple(moved.shape), torch.float32)
    assert torch.equal(torch.autograd.grad(moved, leaf, upstream)[0], upstream)
    assert balance(logits.bfloat16(), labels).dtype == torch.bfloat16
