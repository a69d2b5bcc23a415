"""Kernels see the directions of pixels and prototypes, whatever their lengths."""

import pytest
import torch

from tests.test_lengths import CALLS, OF_MEANS, Lengths, assert_right
from tests.test_lengths import test_euclidean_distances_of_any_scale as euclidean

SHORT, LONG = Lengths(1, "one", -30.0), Lengths(2, "one", 30.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in OF_MEANS])
def test_mixed_lengths(name: str, dtype: torch.dtype) -> None:
    assert_right(name, (Lengths(3, "mixed"), SHORT), dtype, "triton")
    assert_right(name, (Lengths(4, "zeros"), Lengths(5, "mixed")), dtype, "triton")


@pytest.mark.parametrize("name", OF_MEANS)
@pytest.mark.parametrize("drawn", [SHORT, LONG])
def test_common_lengths(name: str, drawn: Lengths) -> None:
    assert_right(name, (drawn, drawn._replace(seed=9)), torch.float32, "triton")


@pytest.mark.parametrize("exponent", [-30.0, -20.0, 0.0, 20.0, 30.0])
def test_distances(exponent: float) -> None:
    euclidean.hypothesis.inner_test(exponent=exponent, seed=0, backend="triton")
