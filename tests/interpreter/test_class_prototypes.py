"""The class-sum kernels equal `naive`, in values and gradient, for calls of any form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import class_prototypes
from tests.agreement import assert_agrees, values_and_gradients
from tests.interpreter.small_spans import span_budget
from tests.strategies import feature_shapes, label_map, normal, seeds, weights
from tests.test_class_prototypes import calls, scales_of


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@given(data=st.data(), upstream_seed=seeds)
def test_any_call(
    normalize: bool, per_image: bool, data: st.DataObject, upstream_seed: int
) -> None:
    shape = data.draw(feature_shapes("BP" if per_image else "BPN"))
    call = data.draw(calls(shape=shape, normalize=normalize, per_image=per_image))
    assert_agrees(
        class_prototypes, call, ["features"], scales=scales_of(call), upstream_seed=upstream_seed,
        backend="triton",
    )  # fmt: skip


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("channels", [7, 76, pytest.param(720, marks=pytest.mark.slow)])
def test_sums_over_one_and_over_many_spans(channels: int, normalize: bool, slot_bytes: int) -> None:
    call = {
        "features": normal(0, (2, channels, 259)),
        "labels": label_map(1, (2, 259), 5),
        "num_classes": 5,
        "pixel_weight": weights(2, (2, 259), torch.float32),
        "normalize": normalize,
    }
    with span_budget(slot_bytes):
        assert_agrees(
            class_prototypes, call, ["features"], scales=scales_of(call), backend="triton"
        )


def test_two_runs_give_the_same_bits() -> None:
    call = {
        "features": normal(0, (2, 40, 140), torch.float32),
        "labels": label_map(1, (2, 140), 5),
        "num_classes": 5,
        "normalize": True,
        "backend": "triton",
    }
    runs = [values_and_gradients(class_prototypes, call, ["features"], 0) for _ in range(2)]
    for first, second in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(first, second)
    assert torch.equal(runs[0][1]["features"], runs[1][1]["features"])
