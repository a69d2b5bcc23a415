"""Exponentials of a softmax: what underflows is nothing, and an absent class is exactly 0."""

import pytest
import torch

from protocontrast import pixel_prototype_contrast, transfer_labels
from protocontrast.eager.similarity import SMALLEST_EXPONENT, Similarity, exp_of_differences_

pytestmark = pytest.mark.usefixtures("eager")

DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_underflows_is_next_to_nothing(dtype: torch.dtype) -> None:
    lowest = SMALLEST_EXPONENT[dtype]
    deep = torch.tensor([lowest, lowest * 2, -1e30, -torch.inf], dtype=dtype)
    found = exp_of_differences_(deep.clone())
    assert torch.equal(found, torch.full_like(deep, lowest).exp())
    assert bool((found > torch.finfo(dtype).tiny * 1e9).all())
    assert float(found.sum() + 1) == 1
    near = torch.linspace(lowest, 0, 101, dtype=dtype)
    assert torch.equal(exp_of_differences_(near.clone()), near.exp())
    assert bool(exp_of_differences_(torch.tensor([torch.nan], dtype=dtype)).isnan())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.1, 1e-3])
@pytest.mark.parametrize("floor", [False, True])
def test_shares_are_those_of_a_softmax(floor: bool, temperature: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 3, dtype=dtype, generator=generator)
    block = torch.randn(3, 64, dtype=dtype, generator=generator)
    present = torch.tensor([True, False, True, True, False])
    similarity = Similarity(rows, present, "cosine", temperature, floor, dtype)
    logits = similarity.scores(block).logits
    expected = similarity.with_offset(logits).softmax(dim=0)
    shares, _ = similarity.exponentials(logits.clone())
    again = similarity.softmax(logits, similarity.with_offset(logits).logsumexp(dim=0))
    for found in (shares / shares.sum(dim=0), again):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-20)
        assert floor or float(found[~present].abs().max()) == 0


@pytest.mark.parametrize("temperature", [0.1, 1e-3])
def test_gradients_and_labels_beside_absent_classes(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 8, 4, 6, generator=generator)
    labels = torch.randint(0, 4, (2, 4, 6), generator=generator)
    rows = torch.randn(6, 8, generator=generator)
    present = torch.tensor([True, True, False, True, True, False])
    found = []
    for backend in ("naive", "eager"):
        leaves = features.clone().requires_grad_(), rows.clone().requires_grad_()
        loss = pixel_prototype_contrast(
            leaves[0], labels, leaves[1], present=present, temperature=temperature, backend=backend
        )
        gradients = torch.autograd.grad(loss, leaves)
        assert float(gradients[1][~present].abs().max()) == 0
        out = transfer_labels(
            features, rows, present=present, temperature=temperature, backend=backend
        )
        found.append((loss.detach(), *gradients, out.labels, out.confidence))
    # What rounding leaves of a logit grows with it, and so does the gradient.
    torch.testing.assert_close(found[0], found[1], rtol=2e-4, atol=4e-9 / temperature)
