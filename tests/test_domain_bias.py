"""`DomainBias`: the moving shift between two domains, and what calibration does with it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import DomainBias, naive, transfer_labels

CLASSES, DIM = 3, 4
ALL = torch.ones(CLASSES, dtype=torch.bool)


def rows(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(CLASSES, DIM, generator=random, dtype=torch.float64).to(dtype)


@given(
    momentum=st.floats(0, 1),
    warmup=st.sampled_from(["zero", "copy"]),
    steps=st.lists(
        st.tuples(st.integers(0, 10**6), st.lists(st.booleans(), min_size=3, max_size=3)),
        min_size=1,
        max_size=5,
    ),
)
def test_the_equation(momentum: float, warmup: Any, steps: list[tuple[int, list[bool]]]) -> None:
    bias = DomainBias(CLASSES, DIM, momentum=momentum, warmup=warmup).double()
    expected = torch.zeros(CLASSES, DIM, dtype=torch.float64)
    seen = torch.zeros(CLASSES, dtype=torch.long)
    for seed, flags in steps:
        present = torch.tensor(flags)
        source, target = rows(seed, torch.float64), rows(seed + 1, torch.float64)
        if warmup == "copy":
            first = present & (seen == 0)
            expected = torch.where(first[:, None], target - source, expected)
        expected = naive.moving_average(expected, target - source, momentum, present)
        seen += present
        bias.update(source, target, present)
        torch.testing.assert_close(bias.bias, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(bias.count, seen)
        assert torch.equal(bias.present, seen > 0)
        calibrated = bias.calibrate(source, 0.7)
        torch.testing.assert_close(calibrated, naive.calibrate(source, expected, 0.7))


def test_classes_of_one_domain_alone_stay_bit_identical() -> None:
    bias = DomainBias(CLASSES, DIM, momentum=0.4)
    bias.update(rows(0), rows(1), ALL)
    before = bias.bias.clone()
    unread = rows(2)
    unread[1] = math.nan
    bias.update(unread, rows(3), torch.tensor([True, False, True]))
    assert torch.equal(bias.bias[1], before[1])
    assert not torch.equal(bias.bias[0], before[0])
    assert bias.count.tolist() == [2, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("warmup", ["zero", "copy"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_difference_that_is_not_finite_is_left_out(side: int, warmup: Any, value: float) -> None:
    bias = DomainBias(CLASSES, DIM, momentum=0.4, warmup=warmup)
    pair = [rows(0), rows(1)]
    pair[side][2, 0] = value
    bias.update(*pair, ALL)
    assert bias.present.tolist() == [True, True, False]
    assert bias.count.tolist() == [1, 1, 0]
    assert bias.bias[2].tolist() == [0.0] * DIM
    assert bias.bias.isfinite().all()


def test_a_difference_too_large_for_the_bias_is_left_out() -> None:
    bias = DomainBias(1, 1, momentum=0.0)
    bias.update(torch.tensor([[-3e38]]), torch.tensor([[3e38]]), torch.tensor([True]))
    assert (bias.bias.item(), bias.present.item()) == (0.0, False)


# G19: the target lies one shift per class from the source.
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_the_gap_closes_by_the_momentum(momentum: float) -> None:
    bias = DomainBias(CLASSES, DIM, momentum=momentum)
    source, shift = rows(0), rows(1)
    for step in range(1, 30):
        bias.update(source, source + shift, ALL)
        gap = (source + shift - bias.calibrate(source)).norm(dim=1)
        torch.testing.assert_close(gap, momentum**step * shift.norm(dim=1), rtol=1e-4, atol=1e-5)


def test_copy_reaches_the_target_at_once_and_zero_does_not() -> None:
    source, target = rows(0), rows(1)
    for warmup, reached in (("copy", True), ("zero", False)):
        bias = DomainBias(CLASSES, DIM, momentum=0.99, warmup=warmup)
        bias.update(source, target, ALL)
        assert torch.allclose(bias.calibrate(source), target, atol=1e-6) == reached


# G20: clusters shifted by more than half their spacing.
def test_calibration_repairs_a_transfer_that_the_shift_breaks() -> None:
    random = torch.Generator().manual_seed(0)
    source = torch.tensor([[1.0, 0.0, 0.2], [0.0, 1.0, 0.2], [-1.0, 0.0, 0.2], [0.0, -1.0, 0.2]])
    turned = source.roll(1, dims=0)
    shift = (turned - source) * 0.8
    truth = torch.arange(4).repeat_interleave(25)
    pixels = (source + shift)[truth] + 0.05 * torch.randn(100, 3, generator=random)
    before = transfer_labels(pixels, source, threshold=0.0).labels
    assert (before == truth).float().mean() == 0
    bias = DomainBias(4, 3, momentum=0.9)
    means = torch.stack([pixels[truth == c].mean(dim=0) for c in range(4)])
    right = []
    for _ in range(40):
        bias.update(source, means, torch.ones(4, dtype=torch.bool))
        found = transfer_labels(pixels, bias.calibrate(source), threshold=0.0).labels
        right.append(float((found == truth).float().mean()))
    assert right[0] == 0
    assert right[-1] == 1
    assert right == sorted(right)


def test_calibration_keeps_gradient_and_dtype_and_writes_nothing() -> None:
    bias = DomainBias(CLASSES, DIM, momentum=0.0)
    bias.update(rows(0), rows(1), ALL)
    before = bias.bias.clone()
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        prototypes = rows(2, dtype).requires_grad_()
        calibrated = bias.calibrate(prototypes)
        assert calibrated.dtype == dtype
        (gradient,) = torch.autograd.grad(calibrated.sum(), prototypes)
        assert gradient.eq(1).all()
    assert torch.equal(bias.bias, before)


@pytest.mark.parametrize("strength", [0, 0.5, 1, -2.0])
def test_strength_scales_the_shift(strength: float) -> None:
    bias = DomainBias(CLASSES, DIM, momentum=0.0)
    bias.update(rows(0), rows(1), ALL)
    expected = rows(2) + strength * (rows(1) - rows(0))
    torch.testing.assert_close(bias.calibrate(rows(2), strength), expected)


def test_strength_zero_and_a_new_bias_change_no_bit() -> None:
    bias = DomainBias(CLASSES, DIM)
    assert torch.equal(bias.calibrate(rows(2)), rows(2))
    bias.update(rows(0), rows(1), ALL)
    assert torch.equal(bias.calibrate(rows(2), 0.0), rows(2))


def test_no_gradient_reaches_the_bias() -> None:
    bias = DomainBias(CLASSES, DIM)
    bias.update(rows(0).requires_grad_(), rows(1).requires_grad_(), ALL)
    assert not bias.bias.requires_grad


def test_prototypes_of_several_dtypes_meet() -> None:
    bias = DomainBias(CLASSES, DIM, momentum=0.0)
    bias.update(rows(0, torch.float64), rows(1, torch.bfloat16), ALL)
    expected = rows(1, torch.bfloat16).double() - rows(0, torch.float64)
    torch.testing.assert_close(bias.bias, expected.float())
