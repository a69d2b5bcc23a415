"""Normal mixtures: their distribution, its inverse and their fit."""

import math
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from protocontrast.bank import mixtures
from protocontrast.bank.mixtures import Mixtures
from tests.strategies import normal, seeds

FEW = settings(max_examples=8)


def mixtures_of(seed: int, *shape: int, apart: float = 1.0) -> Mixtures:
    """Random mixtures of a shape (..., K), their components more or less far apart."""
    weight = normal(seed, shape).exp()
    return Mixtures(
        weight / weight.sum(dim=-1, keepdim=True),
        normal(seed + 1, shape) * apart,
        normal(seed + 2, shape).square() + 1,
    )


def below(z: float, weight: list[float], mean: list[float], variance: list[float]) -> float:
    """F(z) by the standard library."""
    parts = zip(weight, mean, variance, strict=True)
    return sum(w * NormalDist(m, math.sqrt(v)).cdf(z) for w, m, v in parts)


def rows_of(table: Mixtures, *index: int) -> list[list[float]]:
    return [part[index].tolist() for part in table]


def inverse_of(u: float, *parts: list[float]) -> float:
    """The z with F(z) = u, by halving."""
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle, *parts) < u else (low, middle)
    return (low + high) / 2


@FEW
@given(seed=seeds, components=st.integers(1, 5))
def test_the_distribution(seed: int, components: int) -> None:
    table = mixtures_of(seed, 2, components)
    values = torch.linspace(-9, 9, 40, dtype=torch.float64).expand(2, -1)
    found = mixtures.distribution(values, table)
    assert (found.diff(dim=1) >= 0).all()
    for row in range(2):
        for z, share in zip(values[row].tolist(), found[row].tolist(), strict=True):
            assert share == pytest.approx(below(z, *rows_of(table, row)), abs=1e-12)


@FEW
@given(seed=seeds, components=st.integers(1, 5))
def test_the_inverse_undoes_the_distribution(seed: int, components: int) -> None:
    table = mixtures_of(seed, 2, components)
    pieces = mixtures.inverse(table).flatten(0, 1).t().contiguous()
    share = torch.linspace(0.01, 0.99, 1999, dtype=torch.float64).expand(2, -1)
    kind = torch.tensor([[0], [1]]).expand(2, 1999)
    values = mixtures.at(share.clone(), pieces, kind)
    assert (values.diff(dim=1) >= 0).all()
    torch.testing.assert_close(mixtures.distribution(values, table), share, rtol=0, atol=1e-5)
    outside = torch.tensor([[0.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    ends = mixtures.at(outside, pieces, kind[:, :2])
    torch.testing.assert_close(ends, values[:, [0, -1]])


def test_a_gap_between_components_is_crossed_without_a_swing() -> None:
    table = Mixtures(
        *torch.tensor([[[0.5, 0.5]], [[-9.0, 9.0]], [[0.01, 0.01]]], dtype=torch.float64)
    )
    pieces = mixtures.inverse(table).flatten(0, 1).t().contiguous()
    share = torch.linspace(0.01, 0.99, 10_001, dtype=torch.float64)[None]
    values = mixtures.at(share, pieces, torch.zeros_like(share, dtype=torch.long))
    assert (values.diff(dim=1) >= -1e-12).all()
    assert values.abs().max() < 9.3
    # Within the gap a value may be anything, but its share is right to one piece.
    error = (mixtures.distribution(values, table) - share).abs().max()
    assert error < 1 / mixtures.INTERVALS


def test_a_fit_finds_two_clusters_and_never_gets_less_likely() -> None:
    random = torch.Generator().manual_seed(0)
    high = torch.rand(3000, generator=random, dtype=torch.float64) < 0.3
    noise = torch.randn(3000, generator=random, dtype=torch.float64)
    rows = torch.where(high, 4 + 0.5 * noise, -2 + noise)[None]
    fitted = mixtures.first_guess(mixtures.moments(rows), 2)
    likelihoods = []
    for _ in range(60):
        likelihoods.append(mixtures.density(rows, fitted).log().mean().item())
        fitted = mixtures.refitted(mixtures.sums_of(rows, fitted), fitted)
    assert all(after >= before - 1e-12 for before, after in pairwise(likelihoods))
    assert fitted.weight[0].tolist() == pytest.approx([0.7, 0.3], abs=0.02)
    assert fitted.mean[0].tolist() == pytest.approx([-2, 4], abs=0.1)
    assert fitted.variance[0].tolist() == pytest.approx([1, 0.25], abs=0.1)
