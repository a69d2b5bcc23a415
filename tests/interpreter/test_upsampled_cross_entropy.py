"""The kernels of `upsampled_cross_entropy` equal `naive`, in value and gradient."""

import pytest
import torch
from hypothesis import given

from protocontrast import upsampled_cross_entropy
from protocontrast.calls import UpsampledCall
from protocontrast.kernels import upsampled_cross_entropy as kernel
from tests.agreement import assert_agrees
from tests.strategies import seeds
from tests.upsampled_cases import Case, cases, scales


def assert_case_agrees(case: Case, upstream_seed: int) -> None:
    assert_agrees(
        upsampled_cross_entropy, case.call(), ("logits",), scales=scales(case),
        upstream_seed=upstream_seed, backend="triton",
    )  # fmt: skip


@given(case=cases(size=(7, 8)), upstream_seed=seeds)
def test_any_call(case: Case, upstream_seed: int) -> None:
    assert_case_agrees(case, upstream_seed)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (7, 9), (11, 5)])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 5, 1, 4), (1, 5, 3, 1)])
def test_sizes(
    shape: tuple[int, int, int, int], size: tuple[int, int], align_corners: bool
) -> None:
    case = Case(shape=shape, size=size, align_corners=align_corners, reduction="none")
    assert_case_agrees(case, 1)


@pytest.mark.parametrize("align_corners", [False, True])
def test_every_reader_of_a_cell_is_met(align_corners: bool) -> None:
    """Of each size: the positions that read a cell lie where the kernel looks for them."""
    from protocontrast.eager.resampling import axis

    for inputs in range(1, 9):
        for outputs in range(inputs, 30):
            found = axis(inputs, outputs, align_corners, torch.device("cpu"))
            most = kernel._most_readers(inputs, outputs, align_corners)
            for cell in range(inputs):
                lower, upper = found.lower == cell, found.upper == cell
                weight = lower * (1 - found.share) + upper * found.share
                readers = [i for i in range(outputs) if weight[i] > 1e-12]
                if align_corners:
                    first = max(cell - 1, 0) * (outputs - 1) // max(inputs - 1, 1)
                else:
                    first = max((2 * cell - 1) * outputs - inputs, 0) // (2 * inputs)
                assert first <= readers[0]
                assert readers[-1] < first + most


def test_a_label_that_is_no_class_turns_its_own_loss_into_nan() -> None:
    labels = torch.tensor([[[0, 3, -1, 2**33, 255]]])
    call = UpsampledCall(torch.zeros(1, 3, 1, 5), labels, None, 255, False, 0.0)
    loss, mass = kernel.upsampled_cross_entropy(call)
    assert loss.isnan().tolist() == [[[False, True, True, True, False]]]
    assert loss[0, 0, 4] == 0
    assert mass.isnan()
