"""`rectify`: products by loops, known facts, and ProDA's labels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import prototype_logits, rectify, select_labels
from tests.strategies import laid_out, layouts, normal, seeds


@given(seed=seeds, layout=layouts, rows=st.booleans())
def test_products_by_loops(seed: int, layout: str, rows: bool) -> None:
    shape = (6, 3) if rows else (2, 3, 2, 2)
    probabilities = laid_out(normal(seed, shape).softmax(dim=1), layout)
    weights = normal(seed + 1, shape).abs()
    found = rectify(probabilities, weights)
    assert found.shape == probabilities.shape
    pixels = zip(
        probabilities.movedim(1, -1).reshape(-1, 3).tolist(),
        weights.movedim(1, -1).reshape(-1, 3).tolist(),
        found.movedim(1, -1).reshape(-1, 3).tolist(),
        strict=True,
    )
    for shares, factors, rectified in pixels:
        products = [p * w for p, w in zip(shares, factors, strict=True)]
        assert rectified == pytest.approx([q / sum(products) for q in products])


def test_equal_distances_leave_probabilities_unchanged() -> None:
    probabilities = normal(0, (5, 19)).softmax(dim=1)
    weights = torch.full((5, 1), -3.7).double().expand(5, 19).softmax(dim=1)
    torch.testing.assert_close(rectify(probabilities, weights), probabilities)


def test_scales_of_weights_cancel() -> None:
    probabilities, weights = normal(0, (5, 4)).softmax(dim=1), normal(1, (5, 4)).softmax(dim=1)
    scaled = weights * torch.tensor([[0.1], [1.0], [20.0], [3.0], [1e-6]])
    torch.testing.assert_close(rectify(probabilities, scaled), rectify(probabilities, weights))


def test_labels_as_proda_has_them() -> None:
    features, prototypes = normal(0, (2, 8, 4, 3)), normal(1, (5, 8))
    saved = normal(2, (2, 5, 4, 3)).softmax(dim=1)
    distances = torch.stack([(features - p[:, None, None]).norm(dim=1) for p in prototypes], dim=1)
    least = distances.amin(dim=1, keepdim=True)
    released = (-(distances - least) / 1.0).softmax(dim=1) * saved
    released = released / released.sum(dim=1, keepdim=True)
    logits = prototype_logits(features, prototypes, similarity="euclidean", temperature=1.0)
    rectified = rectify(saved, logits.softmax(dim=1))
    torch.testing.assert_close(rectified, released)
    assert torch.equal(select_labels(rectified, 0.0).labels, released.argmax(dim=1))
    assert not torch.equal(released.argmax(dim=1), saved.argmax(dim=1))


def test_where_no_class_is_left_nothing_changes() -> None:
    probabilities = torch.tensor([[1.0, 0.0], [0.3, 0.7]], requires_grad=True)
    weights = torch.tensor([[0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    found = rectify(probabilities, weights)
    assert torch.equal(found, probabilities)
    gradients = torch.autograd.grad(found.sum(), (probabilities, weights))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_gradients_and_dtypes() -> None:
    leaves = (normal(0, (4, 3)).softmax(dim=1), normal(1, (4, 3)).abs() + 0.1)
    assert torch.autograd.gradcheck(rectify, tuple(leaf.requires_grad_() for leaf in leaves))
    half = rectify(leaves[0].detach().half(), leaves[1].detach().bfloat16())
    assert half.dtype == torch.float32
