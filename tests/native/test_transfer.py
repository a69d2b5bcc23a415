"""`transfer_labels` in C equals `naive`; ties, thresholds, absent classes, unreadable pixels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import test_lengths
from tests import test_transfer as any_backend
from tests.native.variants import NAMES, variant


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@given(data=st.data())
def test_any_call(similarity: str, measure: str, name: str, data: st.DataObject) -> None:
    call = data.draw(any_backend.calls(similarity, measure))
    with variant(name):
        any_backend.assert_transfer_agrees(call, "native")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ties_go_to_the_lowest_class(dtype: torch.dtype, similarity: str, name: str) -> None:
    with variant(name):
        for num_classes in (1, 2, 5, 10, 17):
            any_backend.assert_ties_go_lowest(num_classes, 23 * 29, dtype, similarity, "native")


@given(drawn=test_lengths.lengths(), dtype=st.sampled_from(test_lengths.DTYPES))
def test_directions_alone_are_seen(drawn: test_lengths.Lengths, dtype: torch.dtype) -> None:
    test_lengths.test_transfer_sees_directions_alone.hypothesis.inner_test(
        backend="native", drawn=drawn, dtype=dtype
    )


@pytest.mark.parametrize("measure", ["confidence", "similarity"])
def test_what_is_kept_and_what_is_ignored(measure: str) -> None:
    any_backend.test_a_threshold_that_is_just_reached_keeps_the_label(measure, "native")
    for similarity in ("cosine", "dot"):
        any_backend.test_no_class_present(similarity, measure, "native")
        any_backend.test_a_nan_pixel_is_ignored(similarity, measure, "native")


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 5), (7, 3)])
def test_shapes_and_dtypes(shape: tuple[int, ...]) -> None:
    any_backend.test_shapes_and_dtypes(shape, "native")
