"""Lengths from 1e-30 to 1e30 in C, beside others and beside what is no length."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import test_lengths as any_backend
from tests.native.variants import NAMES, variant
from tests.strategies import seeds

COVERED = ["contrast", "contrast mean", "floor", "logits", "pairs", "unit class means"]


@pytest.mark.parametrize("name", COVERED)
@given(
    drawn=st.tuples(any_backend.lengths(), any_backend.lengths()),
    dtype=st.sampled_from(any_backend.DTYPES),
    on=st.sampled_from(NAMES),
)
def test_any_length(
    name: str,
    drawn: tuple[any_backend.Lengths, any_backend.Lengths],
    dtype: torch.dtype,
    on: str,
) -> None:
    with variant(on):
        any_backend.assert_right(name, drawn, dtype, "native")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_length_stays_in_its_row(value: float) -> None:
    any_backend.test_what_is_no_length_stays_in_its_row(value, "native")


@given(exponent=st.floats(-150, 150), seed=seeds)
def test_float64_reaches_further(exponent: float, seed: int) -> None:
    any_backend.test_float64_reaches_further.hypothesis.inner_test(
        exponent=exponent, seed=seed, backend="native"
    )
