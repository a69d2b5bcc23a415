"""The comparison of implementations can fail, in every part of a result."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.agreement import assert_agrees, contrast_scales, similarity_scales
from tests.strategies import ContrastCase, normal, pixel_mass

CALL: dict[str, Any] = {
    "features": normal(0, (5, 3), torch.float32),
    "prototypes": normal(1, (4, 3), torch.float32),
}
SCALES = {"value": 1.0, "features": 1.0, "prototypes": 1.0}


class Implementation:
    """A product of features and prototypes whose "eager" backend is wrong in one chosen way."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def __call__(self, features: Tensor, prototypes: Tensor, backend: str) -> tuple[Tensor, ...]:
        product, nearest = features @ prototypes.t(), torch.arange(len(features))
        if backend == "naive":
            return product, nearest
        if self.fault == "written":
            features.data.add_(0.5)
        if self.fault == "value":
            product = product + 1e-3
        if self.fault == "features":
            product = product + 1e-3 * (features - features.detach()).sum()
        if self.fault == "prototypes":
            product = product + 1e-3 * (prototypes - prototypes.detach()).sum()
        if self.fault == "detached":
            product = product.detach()
        if self.fault == "labels":
            nearest = nearest + 1
        if self.fault == "fewer":
            return (product,)
        if self.fault == "dtype":
            product = product.double()
        return product, nearest


def check(fault: str) -> None:
    call = {name: value.clone() for name, value in CALL.items()}
    assert_agrees(Implementation(fault), call, ["features", "prototypes"], scales=SCALES)


def test_right_results_pass() -> None:
    check("")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("written", "a tensor that is given was written"),
        ("value", "result 0: error"),
        ("features", "gradient of features: error"),
        ("prototypes", "gradient of prototypes: error"),
        ("detached", "gradients to different tensors"),
        ("labels", "result 1: tensor"),
        ("fewer", "different numbers of results"),
        ("dtype", "dtype torch.float64, plain torch.float32"),
    ],
)
def test_every_fault_is_found(fault: str, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        check(fault)


def test_scales_follow_the_call() -> None:
    call = {"features": torch.tensor([[0.0, 0.5]]), "prototypes": torch.tensor([[4.0, 0.0]])}
    slope = torch.tensor([3.0])
    cosine = similarity_scales(call, slope, "cosine", 0.1)
    # Logits up to 1 / tau; a gradient of slope / (tau |f|), or / (tau |p|), times 1 + 1 / tau.
    assert cosine == pytest.approx({"value": 10.0, "features": 660.0, "prototypes": 82.5})
    dot = similarity_scales(call, slope, "dot", 1.0)
    assert dot == pytest.approx({"value": 2.0, "features": 36.0, "prototypes": 4.5})
    nothing = similarity_scales(call, torch.tensor([0.0]), "cosine", 0.1)
    assert (nothing["features"], nothing["prototypes"]) == (0.0, 0.0)


def test_a_case_without_valid_pixels_allows_nothing() -> None:
    case = ContrastCase(0, (2, 3, 4, 4), 3, label_kind="all_ignored")
    call = {**case.tensors(), **case.settings}
    assert (pixel_mass(call, case.settings) == 0).all()
    assert set(contrast_scales(call, case.settings, 0).values()) == {0.0}
