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


def test_a_label_that_is_no_class_turns_its_own_loss_into_nan() -> None:
    labels = torch.tensor([[[0, 3, -1, 2**33, 255]]])
    call = UpsampledCall(torch.zeros(1, 3, 1, 5), labels, None, 255, False, 0.0)
    loss, mass = kernel.upsampled_cross_entropy(call)
    assert loss.isnan().tolist() == [[[False, True, True, True, False]]]
    assert loss[0, 0, 4] == 0
    assert mass.isnan()
