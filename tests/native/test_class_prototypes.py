"""`class_prototypes` in C equals `naive`, and what is not finite stays with its own class."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import class_prototypes
from tests import test_class_prototypes as any_backend
from tests import test_not_finite as not_finite
from tests.agreement import assert_agrees, widened
from tests.native.variants import NAMES, variant
from tests.strategies import feature_shapes, label_map, laid_out, normal, seeds


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@given(data=st.data(), upstream_seed=seeds)
def test_any_call(
    normalize: bool, per_image: bool, name: str, data: st.DataObject, upstream_seed: int
) -> None:
    shape = data.draw(feature_shapes("BP" if per_image else "BPN"))
    call = data.draw(any_backend.calls(shape=shape, normalize=normalize, per_image=per_image))
    with variant(name):
        assert_agrees(
            class_prototypes, call, ["features"], scales=any_backend.scales_of(call),
            upstream_seed=upstream_seed, backend="native",
        )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("normalize", [False, True])
def test_whole_tiles(normalize: bool, layout: str, dtype: torch.dtype) -> None:
    """More than one span, and tiles that are transposed as they lie."""
    call = {
        "features": laid_out(normal(0, (2, 76, 40, 41), dtype), layout),
        "labels": label_map(1, (2, 40, 41), 19),
        "num_classes": 19,
        "pixel_weight": None,
        "normalize": normalize,
    }
    for name in NAMES:
        with variant(name):
            assert_agrees(
                class_prototypes, call, ["features"], scales={"value": 1.0, "features": 1.0},
                backend="native",
            )  # fmt: skip


@given(call=any_backend.calls())
def test_ignored_pixels_are_never_read(call: dict[str, Any]) -> None:
    any_backend.test_ignored_pixels_are_never_read.hypothesis.inner_test(
        backend="native", call=call
    )


@given(call=not_finite.calls(), normalize=st.booleans(), per_image=st.booleans())
def test_what_is_not_finite(call: dict[str, Any], normalize: bool, per_image: bool) -> None:
    call = {**call, "normalize": normalize, "per_image": per_image}
    found = class_prototypes(**call, backend="native")
    expected = class_prototypes(**widened(call), backend="naive")
    not_finite.assert_same(found.mean, expected.mean)
    not_finite.assert_same(found.count, expected.count)


def test_sums_keep_their_digits() -> None:
    """Of 2^18 equal numbers, which added one after another in float32 lose three of them."""
    features = torch.full((1, 3, 2**18), 1.1)
    labels = torch.zeros(1, 2**18, dtype=torch.int64)
    found = class_prototypes(features, labels, 1, backend="native").mean
    torch.testing.assert_close(found, features[0, :, :1].t(), rtol=1e-5, atol=0)
