"""The tolerance can fail: a check that always passes proves nothing."""

import pytest
import torch
from torch import Tensor

from tests.tolerance import STEPS, assert_within, floor_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def rounded(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values as `dtype` holds them, and in float64."""
    truth = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    return truth.to(dtype), truth


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_values_pass(dtype: torch.dtype) -> None:
    plain, truth = rounded(dtype)
    assert_within(plain.clone(), plain, truth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_wrong_element_fails(dtype: torch.dtype) -> None:
    plain, truth = rounded(dtype)
    ours = plain.clone()
    ours[17] += 100 * torch.finfo(dtype).eps
    with pytest.raises(AssertionError, match=r"error .* > 4\.0 \* plain error"):
        assert_within(ours, plain, truth)


def test_a_multiple_of_the_plain_error_is_allowed_and_no_more() -> None:
    truth = torch.ones(3, dtype=torch.float64)
    plain = truth.float() + 1e-3
    assert_within(truth.float() + 3.9e-3, plain, truth)
    with pytest.raises(AssertionError, match="error"):
        assert_within(truth.float() + 4.2e-3, plain, truth)


def test_the_floor_follows_the_scale() -> None:
    truth = torch.zeros(2, dtype=torch.float64)
    plain = truth.float()
    unit = torch.finfo(torch.float32).eps
    assert_within(plain + 10 * unit, plain, truth, scale=1.0)
    with pytest.raises(AssertionError, match="error"):
        assert_within(plain + 20 * unit, plain, truth, scale=1.0)
    with pytest.raises(AssertionError, match="error"):
        assert_within(plain + 10 * unit, plain, truth, scale=0.1)


def test_a_zero_truth_without_scale_allows_nothing() -> None:
    truth = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(AssertionError, match="error"):
        assert_within(torch.tensor([0.0, 1e-40]), truth.float(), truth)


def test_the_floor_of_half_precision_is_its_own_rounding() -> None:
    truth = torch.tensor([8.0], dtype=torch.float64)
    half = floor_of(truth, torch.float16, 0.0)
    assert half == pytest.approx(2 * 8 * 2.0**-10, rel=1e-3)
    assert floor_of(truth, torch.float32, 1.0) == pytest.approx((16 + STEPS) * 2.0**-23)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", ["ours", "plain"])
def test_a_stray_nonfinite_value_fails(odd: float, side: str) -> None:
    plain, truth = rounded(torch.float32)
    tensors = {"ours": plain.clone(), "plain": plain.clone()}
    tensors[side][3] = odd
    with pytest.raises(AssertionError, match=f"{side} is not finite in other places"):
        assert_within(tensors["ours"], tensors["plain"], truth)


def test_nonfinite_values_must_be_the_same_ones() -> None:
    truth = torch.tensor([float("nan"), float("inf"), 1.0], dtype=torch.float64)
    plain = truth.float()
    assert_within(plain.clone(), plain, truth)
    for wrong in ([float("inf"), float("inf"), 1.0], [float("nan"), -float("inf"), 1.0]):
        with pytest.raises(AssertionError, match="ours is not finite in other places"):
            assert_within(torch.tensor(wrong), plain, truth)
    with pytest.raises(AssertionError, match="ours is not finite in other places"):
        assert_within(torch.tensor([0.0, float("inf"), 1.0]), plain, truth)


def test_another_shape_fails() -> None:
    plain, truth = rounded(torch.float32)
    with pytest.raises(AssertionError, match=r"ours \(50, 1\), truth \(50,\)"):
        assert_within(plain[:, None], plain, truth)


def test_another_dtype_fails() -> None:
    plain, truth = rounded(torch.float32)
    with pytest.raises(AssertionError, match=r"dtype torch.float64, plain torch.float32"):
        assert_within(truth, plain, truth)


def test_the_truth_is_float64() -> None:
    plain, _ = rounded(torch.float32)
    with pytest.raises(TypeError, match=r"expected truth in float64, got torch.float32\."):
        assert_within(plain, plain, plain)


def test_empty_tensors_pass() -> None:
    empty = torch.empty(0, 3)
    assert_within(empty, empty, empty.double())
