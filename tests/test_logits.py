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
