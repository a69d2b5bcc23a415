"""`prototype_logits` in C equals `naive`, in value and every gradient, on every variant."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import pixel_prototype_contrast, prototype_logits
from tests import test_absent_logits as absent
from tests import test_lengths
from tests import test_logits as any_backend
from tests.agreement import assert_agrees
from tests.native.variants import NAMES, variant
from tests.strategies import channels, class_counts, laid_out, normal, seeds

SIMILARITIES = ["cosine", "dot", "euclidean"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(data=st.data())
def test_any_call(similarity: str, name: str, data: st.DataObject) -> None:
    with variant(name):
        any_backend.assert_any_call_agrees(similarity, data, "native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_whole_tiles(similarity: str, layout: str, dtype: torch.dtype) -> None:
    """More than one span, and gradients that are written as they lie."""
    call = {
        "features": laid_out(normal(0, (2, 76, 40, 41), dtype), layout),
        "prototypes": normal(1, (19, 76), torch.float32),
        "similarity": similarity,
        "temperature": 1.0,
    }
    sizes = {"value": 80.0, "features": 80.0, "prototypes": 3e4}
    for name in NAMES:
        with variant(name):
            assert_agrees(
                prototype_logits, call, ("features", "prototypes"), scales=sizes, backend="native"
            )


def test_absent_columns() -> None:
    any_backend.test_absent_columns_are_minus_infinity_and_never_read("native")
    any_backend.test_a_spoilt_pixel_spoils_itself_alone("native")
    absent.test_logits_of_prototypes_upsampled_to_the_same_size_are_the_contrast("native")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 7, 3, 5), (2, 7, 15), (15, 7)])
def test_the_gradient_has_the_features_memory_format(shape: tuple[int, ...], layout: str) -> None:
    any_backend.test_the_gradient_has_the_features_memory_format(shape, layout, "native")


@given(depth=channels, num_classes=class_counts, seed=seeds)
def test_upstream_gradients_of_any_stride(depth: int, num_classes: int, seed: int) -> None:
    any_backend.assert_upstream_gradients_of_any_stride(depth, num_classes, seed, "native")


def test_a_bank_may_change_between_forward_and_backward() -> None:
    any_backend.test_a_bank_may_change_between_forward_and_backward("native")


@given(exponent=st.floats(-30, 30), seed=seeds)
def test_distances_of_any_scale(exponent: float, seed: int) -> None:
    test_lengths.test_euclidean_distances_of_any_scale.hypothesis.inner_test(
        exponent=exponent, seed=seed, backend="native"
    )


def test_a_temperature_that_is_learnt_goes_by_the_logits() -> None:
    features, prototypes = normal(0, (2, 5, 6)), normal(1, (3, 5))
    labels = torch.tensor([[0, 1, 2, 255, 1, 0], [2, 2, 0, 1, 255, 255]])
    results = []
    for backend in ("native", "naive"):
        leaves = features.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
        loss = pixel_prototype_contrast(
            leaves[0], labels, prototypes, temperature=leaves[1], backend=backend
        )
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*results)
