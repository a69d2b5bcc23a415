"""`prototype_logits`: eager equals `naive`, and what stands at absent classes."""

import pytest
import torch
from hypothesis import given

from protocontrast import prototype_logits
from tests.strategies import class_counts, feature_shapes

BACKENDS = ["eager", "naive"]


@pytest.mark.parametrize("backend", BACKENDS)
@given(shape=feature_shapes(), num_classes=class_counts)
def test_the_class_stands_where_the_channel_stood(
    backend: str, shape: tuple[int, ...], num_classes: int
) -> None:
    features, prototypes = torch.ones(shape), torch.ones(num_classes, shape[1])
    found = prototype_logits(features, prototypes, backend=backend)
    assert found.shape == (shape[0], num_classes, *shape[2:])
    assert found.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_product_has_its_gradient_where_features_are_not_finite(backend: str) -> None:
    """They take no part in it, so that a pixel that a later loss ignores gives 0."""
    features, prototypes = torch.ones(2, 3, 70), torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    features[0, 1, 5], features[1, 2, 69] = torch.nan, torch.inf
    slopes = torch.arange(280.0).reshape(2, 2, 70)
    slopes[0, :, 5] = 0
    features.requires_grad_()
    logits = prototype_logits(
        features, prototypes, similarity="dot", temperature=1.0, backend=backend
    )
    (found,) = torch.autograd.grad(logits, features, slopes)
    assert torch.equal(found, torch.einsum("bcp,cd->bdp", slopes, prototypes))
