"""`pair_contrast` by distances: as metric learning has it, and at the ends of them."""

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


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_lengths_at_the_ends(size: float, exclude_self: bool, backend: str) -> None:
    """Squares of such numbers are none in float32; what takes no part may be larger still."""
    call = Case(6, 9, 12, 4, similarity="euclidean", exclude_self=exclude_self).call()
    call["anchor_labels"][0] = 255
    call["anchors"][0] = float("inf")

    def found(factor: float, backend: str) -> list[Tensor]:
        leaves = {name: (call[name] * factor).requires_grad_() for name in ("anchors", "keys")}
        loss = pair_contrast(**{**call, **leaves, "temperature": 0.5 * factor}, backend=backend)
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        return [loss.detach(), *(slope * factor for slope in slopes)]

    torch.testing.assert_close(found(size, backend), found(1.0, "naive"), rtol=1e-4, atol=1e-5)
