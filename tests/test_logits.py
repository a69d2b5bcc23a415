"""`prototype_logits`: eager equals `naive`, and what stands at absent classes."""

import pytest
import torch
from hypothesis import given

from protocontrast import pixel_prototype_contrast, prototype_logits
from tests.strategies import NAN, ContrastCase, class_counts, feature_shapes, normal

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
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_is_wide(dtype: torch.dtype, backend: str) -> None:
    found = prototype_logits(torch.ones(2, 3, dtype=dtype), torch.ones(4, 3), backend=backend)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_absent_columns_are_minus_infinity_and_never_read(backend: str) -> None:
    features = normal(0, (5, 3)).requires_grad_()
    prototypes = torch.where(torch.tensor([[True], [False], [True]]), normal(1, (3, 3)), NAN)
    prototypes.requires_grad_()
    present = torch.tensor([True, False, True])
    found = prototype_logits(features, prototypes, present=present, backend=backend)
    assert torch.equal(found == -torch.inf, (~present).expand(5, 3))
    upstream = torch.where(present, torch.ones(5, 3), NAN).double()
    to_features, to_prototypes = torch.autograd.grad(found, (features, prototypes), upstream)
    assert torch.isfinite(to_features).all()
    assert torch.equal(to_prototypes[1], torch.zeros(3, dtype=torch.float64))
    implied = prototype_logits(features, torch.nan_to_num(prototypes), backend=backend)
    assert torch.equal(implied, found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_spoilt_pixel_spoils_itself_alone(backend: str) -> None:
    features = normal(0, (5, 3))
    features[2, 1] = NAN
    found = prototype_logits(features, normal(1, (4, 3)), backend=backend)
    assert torch.isnan(found[2]).all()
    assert torch.isfinite(found[[0, 1, 3, 4]]).all()


def test_cross_entropy_of_the_logits_is_the_contrast() -> None:
    case = ContrastCase(0, (2, 7, 3, 5), 4, dtype=torch.float64)
    call = case.tensors()
    found = prototype_logits(call["features"], call["prototypes"])
    plain = torch.nn.functional.cross_entropy(found, call["labels"], ignore_index=255)
    loss = pixel_prototype_contrast(call["features"], call["labels"], call["prototypes"])
    torch.testing.assert_close(plain, loss, rtol=1e-12, atol=0)
