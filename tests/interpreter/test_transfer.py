"""The transfer kernel equals `naive` for calls of any form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.test_transfer import KINDS, assert_ties_go_lowest, assert_transfer_agrees, calls


@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("similarity", KINDS)
@given(data=st.data())
def test_any_call(similarity: str, measure: str, data: st.DataObject) -> None:
    assert_transfer_agrees(data.draw(calls(similarity, measure)), backend="triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("similarity", KINDS)
def test_ties_go_to_the_lowest_class(similarity: str, dtype: torch.dtype) -> None:
    assert_ties_go_lowest(9, 40, dtype, similarity, "triton")
