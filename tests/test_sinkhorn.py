"""`sinkhorn`: loops in plain numbers, marginals, and what it does at the ends."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import sinkhorn
from tests.strategies import laid_out, layouts, normal, seeds


def balanced(
    rows: list[list[float]], prior: list[float], weight: list[float], epsilon: float, rounds: int
) -> list[list[float]]:
    """Not in logarithms, in the order of the formula."""
    shares = [[math.exp(score / epsilon) for score in row] for row in rows]
    for _ in range(rounds):
        for c in range(len(prior)):
            column = sum(w * row[c] for w, row in zip(weight, shares, strict=True))
            for row in shares:
                row[c] *= prior[c] / column
        shares = [[share / sum(row) for share in row] for row in shares]
    return shares


@given(
    seed=seeds,
    layout=layouts,
    rounds=st.integers(1, 5),
    given_prior=st.booleans(),
    form=st.sampled_from(["map", "rows"]),
)
def test_by_loops(seed: int, layout: str, rounds: int, given_prior: bool, form: str) -> None:
    shape = (2, 3, 2, 2) if form == "map" else (8, 3)
    scores = laid_out(normal(seed, shape).tanh(), layout)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(1, 4, (8,), generator=generator).double()
    prior = torch.tensor([0.2, 0.5, 0.3]).double() if given_prior else None
    pixel_weight = weight.reshape(2, 2, 2) if form == "map" else weight
    found = sinkhorn(scores, prior, epsilon=0.3, iterations=rounds, pixel_weight=pixel_weight)
    rows = scores.movedim(1, -1).reshape(-1, 3).tolist()
    shares = [0.2, 0.5, 0.3] if given_prior else [1 / 3] * 3
    expected = balanced(rows, shares, weight.tolist(), 0.3, rounds)
    assert found.shape == scores.shape
    torch.testing.assert_close(
        found.movedim(1, -1).reshape(-1, 3), torch.tensor(expected, dtype=torch.float64)
    )


def test_equal_scores_are_shared_equally() -> None:
    shares = sinkhorn(torch.zeros(20, 8))
    torch.testing.assert_close(shares, torch.full((20, 8), 1 / 8))


def test_a_thousand_pixels_in_ten_columns() -> None:
    units = torch.nn.functional.normalize(normal(0, (1010, 256)), dim=1)
    scores = units[:1000] @ units[1000:].t() + torch.linspace(-0.1, 0.1, 10).double()
    columns = sinkhorn(scores).sum(dim=0)
    assert columns.min() >= 98
    assert columns.max() <= 102
    assert scores.argmax(dim=1).bincount(minlength=10).max() > 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_reach_the_prior(dtype: torch.dtype) -> None:
    prior = torch.tensor([5.0, 3.0, 2.0, 0.0])
    shares = sinkhorn(normal(0, (200, 4), dtype).tanh(), prior, iterations=300)
    assert shares.dtype == dtype
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(200, dtype=dtype))
    expected = torch.tensor([100.0, 60.0, 40.0, 0.0], dtype=dtype)
    torch.testing.assert_close(shares.sum(dim=0), expected, rtol=1e-3, atol=1e-6)
    assert not shares[:, 3].any()


def test_no_score_is_too_large() -> None:
    scores = torch.tensor([[1000.0, -1000.0], [999.0, 0.0], [-5.0, 700.0], [0.0, 0.0]])
    shares = sinkhorn(scores, epsilon=0.01, iterations=10)
    assert shares.isfinite().all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))


def test_where_a_pixel_may_not_go() -> None:
    scores = normal(0, (30, 4))
    scores[:, 2] = -torch.inf
    scores[3] = -torch.inf
    scores[4, 1] = -torch.inf
    shares = sinkhorn(scores, iterations=5)
    assert shares.isfinite().all()
    assert not shares[:, 2].any()
    assert not shares[3].any()
    assert shares[4, 1] == 0
    others = [i for i in range(30) if i != 3]
    torch.testing.assert_close(shares[others].sum(dim=1), torch.ones(29).double())


def test_a_pixel_of_weight_zero_takes_no_part() -> None:
    scores = normal(0, (10, 3))
    weight = torch.ones(10)
    weight[[2, 7]] = 0
    spoilt = scores.clone()
    spoilt[[2, 7]] = torch.nan
    shares = sinkhorn(spoilt, pixel_weight=weight)
    assert not shares[[2, 7]].any()
    torch.testing.assert_close(shares[weight > 0], sinkhorn(scores[weight > 0]))


def test_smaller_epsilon_is_nearer_to_a_hard_assignment() -> None:
    scores = normal(0, (40, 4)).tanh()
    sureness = [
        sinkhorn(scores, epsilon=epsilon, iterations=50).amax(dim=1).mean().item()
        for epsilon in (1.0, 0.1, 0.01)
    ]
    assert sureness == sorted(sureness)
    assert sureness[-1] > 0.95


def test_no_gradient() -> None:
    assert not sinkhorn(normal(0, (4, 3)).requires_grad_()).requires_grad


@pytest.mark.parametrize("scale", [1e-38, 1.5e38])
def test_a_prior_is_in_any_scale(scale: float) -> None:
    scores, prior = normal(0, (7, 3), torch.float32).tanh(), torch.tensor([1.0, 0.5, 2.0])
    torch.testing.assert_close(sinkhorn(scores, scale * prior), sinkhorn(scores, prior))


def test_without_a_share_no_pixel_takes_part() -> None:
    assert torch.equal(sinkhorn(torch.ones(2, 3), torch.zeros(3)), torch.zeros(2, 3))
