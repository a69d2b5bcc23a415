"""`pair_contrast` by distances: as metric learning has it, and at the ends of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast import pair_contrast
from tests.pair_cases import Case
from tests.strategies import normal

BACKENDS = ["eager", "naive"]
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 3])


def distances(rows: Tensor) -> Tensor:
    """Of all pairs; 0 with gradient 0 of a row to itself."""
    squared = (rows[:, None] - rows).square().sum(dim=2)
    apart = squared != 0
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def peers(rows: Tensor, temperature: float, supervised: bool) -> Tensor:
    """NTXent, or SupCon, over minus the distance: the mean over pairs within each anchor."""
    score = -distances(rows) / temperature
    same, itself = LABELS[:, None] == LABELS, torch.eye(len(rows), dtype=torch.bool)
    losses = []
    for i in range(len(rows)):
        terms = []
        for p in range(len(rows)):
            if itself[i, p] or not same[i, p]:
                continue
            rivals = score[i][~same[i]]
            others = score[i][~itself[i]] if supervised else torch.cat([score[i, p, None], rivals])
            terms.append(others.logsumexp(dim=0) - score[i, p])
        if terms:
            losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_losses_of_metric_learning(temperature: float, denominator: str, backend: str) -> None:
    rows = normal(0, (8, 5), torch.float64).requires_grad_()
    ours = pair_contrast(
        rows, LABELS, rows, LABELS, exclude_self=True, similarity="euclidean",
        temperature=temperature, denominator=denominator, backend=backend,
    )  # fmt: skip
    theirs = peers(rows, temperature, denominator == "all")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, rows), torch.autograd.grad(theirs, rows))


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_distance_zero_the_gradient_is_zero(backend: str) -> None:
    """Both positives are the anchor itself, and there is nothing to push from."""
    row = torch.tensor([[1.0, 2.0]], requires_grad=True)
    keys = row.detach().repeat(2, 1).requires_grad_()
    loss = pair_contrast(
        row, torch.tensor([0]), keys, torch.tensor([0, 1]), similarity="euclidean", backend=backend
    )
    assert abs(float(loss.detach()) - 0.6931) < 1e-4
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (row, keys)))


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_lengths_at_the_ends(size: float, backend: str = "eager") -> None:
    """Squares of such numbers are none in float32; the gradient is that of a plain size."""
    rows = normal(1, (8, 5), torch.float32)

    def found(factor: float) -> tuple[Tensor, Tensor]:
        leaf = (rows * factor).requires_grad_()
        loss = pair_contrast(
            leaf, LABELS, leaf, LABELS, exclude_self=True, similarity="euclidean",
            temperature=0.5 * factor, backend=backend,
        )  # fmt: skip
        return loss.detach(), torch.autograd.grad(loss, leaf)[0] * factor

    torch.testing.assert_close(found(size), found(1.0), rtol=1e-4, atol=1e-5)


def test_gradcheck() -> None:
    call = Case(3, 6, 8, 4, 3, torch.float64, torch.float64, negatives=5, temperature=0.5).call()
    call["similarity"] = "euclidean"
    names = ("anchors", "keys", "negatives")
    rows = [call[name].requires_grad_() for name in names]

    def loss(*given: Tensor) -> Tensor:
        return pair_contrast(**{**call, **dict(zip(names, given, strict=True))})

    assert torch.autograd.gradcheck(loss, rows)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_a_learnt_temperature(denominator: str) -> None:
    rows = normal(0, (8, 5), torch.float64).requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    how: dict[str, Any] = {"similarity": "euclidean", "denominator": denominator}

    def loss(rows: Tensor, temperature: Tensor | float) -> Tensor:
        return pair_contrast(
            rows, LABELS, rows, LABELS, exclude_self=True, temperature=temperature, **how
        )

    assert torch.autograd.gradcheck(loss, (rows, temperature))
    torch.testing.assert_close(loss(rows, temperature), loss(rows, 0.5))


@pytest.mark.slow
def test_compiled() -> None:
    torch.compiler.reset()
    rows = normal(0, (8, 5), torch.float32)

    def loss(rows: Tensor) -> Tensor:
        return pair_contrast(rows, LABELS, rows, LABELS, similarity="euclidean", exclude_self=True)

    traced = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = []
    for call in (loss, traced):
        leaf = rows.clone().requires_grad_()
        value = call(leaf)
        found.append([value.detach(), *torch.autograd.grad(value, leaf)])
    torch.testing.assert_close(found[1], found[0])
    torch.compiler.reset()
