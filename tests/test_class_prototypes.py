"""`class_prototypes`: eager equals `naive`, and spoilt pixels stay with their class."""

from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast import ClassPrototypes, class_prototypes
from tests.strategies import NAN, label_map, normal, pixel_shape, weights

BACKENDS = ["eager", "naive"]


def test_the_result_names_its_parts() -> None:
    stats = class_prototypes(torch.ones(3, 2), torch.tensor([0, 0, 255]), 2)
    assert isinstance(stats, ClassPrototypes)
    assert stats.present.tolist() == [True, False]
    assert stats._fields == ("mean", "count")
    assert not stats.count.requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_is_wide(dtype: torch.dtype, backend: str) -> None:
    features = torch.full((4096, 1), 1.001, dtype=dtype)
    stats = class_prototypes(features, torch.zeros(4096, dtype=torch.uint8), 1, backend=backend)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert stats.mean.dtype == stats.count.dtype == wide
    # A half-precision sum would stop at 2048.
    assert stats.count.item() == 4096
    assert stats.mean.item() == pytest.approx(features[0].item(), rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_classes", [256, 300])
def test_more_classes_than_the_label_dtype_holds(num_classes: int, backend: str) -> None:
    labels = torch.tensor([0, 254, 254, 255], dtype=torch.uint8)
    kept = class_prototypes(
        torch.ones(4, 2), labels, num_classes, ignore_index=-100, backend=backend
    )
    assert kept.count.nonzero().flatten().tolist() == [0, 254, 255]
    rest = class_prototypes(torch.ones(4, 2), labels, 255, backend=backend)
    assert rest.count.nonzero().flatten().tolist() == [0, 254]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per_image", [False, True])
def test_no_image_and_no_pixel(per_image: bool, backend: str) -> None:
    for shape in [(0, 3, 2, 2), (0, 3, 0), (2, 3, 0, 4)]:
        features = torch.ones(shape, requires_grad=True)
        labels = torch.zeros(pixel_shape(shape), dtype=torch.int64)
        stats = class_prototypes(features, labels, 4, per_image=per_image, backend=backend)
        groups = (shape[0],) if per_image else ()
        assert stats.mean.shape == (*groups, 4, 3)
        assert (stats.mean == 0).all() and (stats.count == 0).all()
        (gradient,) = torch.autograd.grad(stats.mean.sum(), features)
        assert gradient.shape == shape


def test_per_image_is_one_call_per_image() -> None:
    features, labels = normal(0, (3, 5, 4, 4)), label_map(1, (3, 4, 4), 6)
    stats = class_prototypes(features, labels, 6, per_image=True)
    singles = [class_prototypes(features[b : b + 1], labels[b : b + 1], 6) for b in range(3)]
    assert torch.equal(stats.mean, torch.stack([single.mean for single in singles]))
    assert torch.equal(stats.count, torch.stack([single.count for single in singles]))


def gradient_of(mean: Tensor, features: Tensor, upstream: Tensor) -> Tensor:
    return torch.autograd.grad(mean, features, upstream, retain_graph=True)[0]


def _upstream_of_a_class(
    row: tuple[int | slice, ...], value: float, backend: Any, **settings: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The features' gradient without and with a value in that of the means, and the labels."""
    features = normal(0, (2, 7, 3, 5), torch.float32).requires_grad_()
    labels = label_map(1, (2, 3, 5), 3)
    weighted = settings.pop("weighted")
    weight = weights(2, (2, 3, 5), torch.float32) if weighted else None
    mean = class_prototypes(
        features, labels, 4, pixel_weight=weight, backend=backend, **settings
    ).mean
    upstream = normal(3, tuple(mean.shape), torch.float32)
    spoilt = upstream.clone()
    spoilt[(..., *row)] = value
    expected, found = (gradient_of(mean, features, each) for each in (upstream, spoilt))
    return expected, found, labels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_an_upstream_gradient_that_is_not_finite_stays_with_its_class(
    normalize: bool, per_image: bool, weighted: bool, value: float, backend: Any
) -> None:
    expected, found, labels = _upstream_of_a_class(
        (0, 1), value, backend, weighted=weighted, per_image=per_image, normalize=normalize
    )
    others = (labels != 0)[:, None].expand_as(found)
    torch.testing.assert_close(found[others], expected[others])
    assert not found[:, 1].isfinite().all()
