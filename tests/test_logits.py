"""`prototype_logits`: eager equals `naive`, and what stands at absent classes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import pixel_prototype_contrast, prototype_logits
from tests.agreement import assert_agrees, similarity_scales
from tests.small_tiles import small_tiles
from tests.strategies import (
    NAN,
    ContrastCase,
    channels,
    class_counts,
    contrast_cases,
    feature_shapes,
    normal,
    rows_of,
    seeds,
)

BACKENDS = ["eager", "naive"]
NAMES = ("features", "prototypes", "present", "similarity", "temperature")


def assert_any_call_agrees(similarity: str, data: st.DataObject, backend: str) -> None:
    case = data.draw(contrast_cases(similarity=similarity, spoilt=None))
    everything = {**case.tensors(), **case.settings}
    call = {name: everything[name] for name in NAMES}
    wanted = data.draw(
        st.sampled_from([("features",), ("prototypes",), ("features", "prototypes")])
    )
    # Upstream gradients are standard normal: four times their number bounds a pixel's sum.
    slope = torch.full((len(rows_of(call["features"])),), 4.0 * case.num_classes)
    scales = similarity_scales(call, slope, similarity, case.temperature)
    assert_agrees(
        prototype_logits, call, wanted, scales=scales, upstream_seed=data.draw(seeds),
        backend=backend,
    )  # fmt: skip


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@given(data=st.data())
def test_any_call(similarity: str, data: st.DataObject) -> None:
    with small_tiles():
        assert_any_call_agrees(similarity, data, "eager")


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


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 7, 3, 5), (2, 7, 15), (15, 7)])
def test_the_gradient_has_the_features_memory_format(
    shape: tuple[int, ...], layout: str, backend: str = "eager"
) -> None:
    features = ContrastCase(0, shape, 4, layout=layout).tensors()["features"].requires_grad_()
    found = prototype_logits(features, normal(1, (4, 7), torch.float32), backend=backend)
    (gradient,) = torch.autograd.grad(found.sum(), features)
    assert gradient.stride() == features.stride()


def assert_upstream_gradients_of_any_stride(
    depth: int, num_classes: int, seed: int, backend: str
) -> None:
    shape = (2, depth, 3, 5)
    features = normal(seed, shape, torch.float32).requires_grad_()
    prototypes = normal(seed + 1, (num_classes, depth), torch.float32).requires_grad_()
    found = prototype_logits(features, prototypes, backend=backend)
    upstream = normal(seed, (5, 3, num_classes, 2), torch.float32).permute(3, 2, 1, 0)
    leaves = (features, prototypes)
    permuted = torch.autograd.grad(found, leaves, upstream, retain_graph=True)
    contiguous = torch.autograd.grad(found, leaves, upstream.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(permuted, contiguous, strict=True))


@given(depth=channels, num_classes=class_counts, seed=seeds)
def test_upstream_gradients_of_any_stride(depth: int, num_classes: int, seed: int) -> None:
    assert_upstream_gradients_of_any_stride(depth, num_classes, seed, "eager")


def test_a_bank_may_change_between_forward_and_backward(backend: str = "eager") -> None:
    features = normal(0, (9, 3)).requires_grad_()
    bank, present = normal(1, (4, 3)), torch.tensor([True, False, True, True])
    found = prototype_logits(features, bank, present=present, backend=backend)
    upstream = normal(2, (9, 4))
    (expected,) = torch.autograd.grad(found, features, upstream, retain_graph=True)
    bank.zero_()
    present.logical_not_()
    assert torch.equal(torch.autograd.grad(found, features, upstream)[0], expected)
