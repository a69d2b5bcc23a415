"""The kernels of `upsampled_cross_entropy` equal `naive`, in value and gradient."""

import math
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
import torch

from protocontrast import naive
from protocontrast.calls import UpsampledCall
from protocontrast.kernels import upsampled_cross_entropy as kernel
from protocontrast.kernels.upsampled_cross_entropy_backward import (
    cut_of,
    most_runs,
    upsampled_cross_entropy_backward,
)
from protocontrast.kernels.upsampling import most_in
from tests.operator_calls import upsampled
from tests.strategies import label_map, normal
from tests.upsampled_cases import Case


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (7, 9), (11, 5)])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 5, 1, 4), (1, 5, 3, 1)])
def test_sizes(
    shape: tuple[int, int, int, int], size: tuple[int, int], align_corners: bool
) -> None:
    case = Case(shape=shape, size=size, align_corners=align_corners, reduction="none")
    upsampled(case).assert_agrees("triton")


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("width", [63, 64, 65, 124, 128])
def test_strips_of_columns(width: int, align_corners: bool) -> None:
    """At their seams, and where runs of columns are intervals between cells or are not."""
    case = Case(shape=(1, 3, 2, 16), size=(3, width), align_corners=align_corners, reduction="none")
    upsampled(case).assert_agrees("triton")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("classes", "size"), [(31, (2, 9)), (32, (3, 5)), (33, (13, 9))])
def test_classes_that_a_thread_holds_and_more(
    classes: int, size: tuple[int, int], label_smoothing: float
) -> None:
    case = Case(
        shape=(1, classes, 2, 3), size=size, class_weight=torch.float32, reduction="none",
        label_smoothing=label_smoothing,
    )  # fmt: skip
    upsampled(case).assert_agrees("triton")


def intervals(inputs: int, outputs: int, align_corners: bool) -> list[int]:
    """Where each output position lies: after how many cells."""
    half = Fraction(0 if align_corners else 1, 2)
    step = Fraction(inputs, outputs)
    if align_corners:
        step = Fraction(inputs - 1, max(outputs - 1, 1))
    return [math.floor((position + half) * step - half) + 1 for position in range(outputs)]


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_run_of_columns_sends_to_so_many_cells(align_corners: bool) -> None:
    """Of each size: no run meets more cells, no interval has more columns, no cell more runs."""
    for inputs, outputs in product(range(1, 9), range(1, 70)):
        found = intervals(inputs, outputs, align_corners)
        cut = cut_of(inputs, outputs, align_corners)
        most = most_in(inputs, outputs, align_corners)
        assert max(Counter(found).values()) <= most
        runs = [(column - cut.first) // cut.length for column in range(outputs)]
        for run in set(runs):
            inside = [found[column] for column in range(outputs) if runs[column] == run]
            assert inside[-1] - inside[0] + 2 <= cut.sends
        for cell in range(inputs):
            meets = {run for run, at in zip(runs, found, strict=True) if at - cell in (0, 1)}
            assert len(meets) <= most_runs(inputs, outputs, align_corners, cut.length)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_every_ratio(inputs: int, align_corners: bool) -> None:
    """Also one below 1, which only the kernels take."""
    for outputs in (1, 2, 3, 4, 5, 6, 12, 13, 70):
        call = UpsampledCall(
            normal(1, (1, 2, 2, inputs), torch.float64), label_map(2, (1, 3, outputs), 2), None,
            255, align_corners, 0.0,
        )  # fmt: skip
        upstream = normal(3, (1, 3, outputs), torch.float64)
        leaf = call.logits.clone().requires_grad_()
        expected, _ = naive.upsampled_cross_entropy(call._replace(logits=leaf))
        torch.testing.assert_close(kernel.upsampled_cross_entropy(call)[0], expected.detach())
        found = upsampled_cross_entropy_backward(upstream, call, (True,))
        torch.testing.assert_close(found, torch.autograd.grad(expected, leaf, upstream)[0])
