"""The transfer kernel on few pixels; tests/test_transfer.py has too many of them for it."""

import pytest
import torch

from tests.test_transfer import KINDS, assert_ties_go_lowest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("similarity", KINDS)
def test_ties_go_to_the_lowest_class(similarity: str, dtype: torch.dtype) -> None:
    assert_ties_go_lowest(9, 40, dtype, similarity, "triton")
