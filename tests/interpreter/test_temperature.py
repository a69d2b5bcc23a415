"""Kernels that find the temperature in memory, as they do on a device."""

from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast.calls import ContrastCall, TargetPassCall, TransferCall
from protocontrast.kernels.contrast import contrast
from protocontrast.kernels.contrast_backward import contrast_backward
from protocontrast.kernels.target_pass import target_pass
from protocontrast.kernels.transfer import transfer
from tests.differentiable import scene

PRESENT = torch.tensor([True, True, False])


def of_contrast(temperature: float | Tensor, dtype: torch.dtype, kind: str) -> tuple[Tensor, ...]:
    features, labels, prototypes = scene(dtype)
    inputs = features, labels, prototypes, PRESENT, None, None
    call = ContrastCall(*inputs, kind, temperature, kind == "cosine", 255)
    found = contrast(call)
    gradients = contrast_backward(torch.ones_like(found[0]), call, (True, True), found[2])
    return *found, *gradients


def of_labels(temperature: float | Tensor, dtype: torch.dtype, kind: str) -> tuple[Tensor, ...]:
    features, _, prototypes = scene(dtype)
    settings = 0.5, "confidence", kind, temperature, 255
    return transfer(TransferCall(features, prototypes, PRESENT, None, *settings))


def of_target(temperature: float | Tensor, dtype: torch.dtype, kind: str) -> tuple[Tensor, ...]:
    features, labels, prototypes = scene(dtype)
    call = TargetPassCall(
        features, labels, None, None, prototypes, prototypes + 1, PRESENT, PRESENT, 0.4,
        "confidence", temperature, False, False, 255, True, True,
    )  # fmt: skip
    return target_pass(call)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (of_contrast, "cosine"),
        (of_contrast, "dot"),
        (of_contrast, "euclidean"),
        (of_labels, "cosine"),
        (of_target, "cosine"),
    ],
)
def test_a_tensor_gives_what_its_number_gives(call: Any, kind: str, dtype: torch.dtype) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    expected = call(0.3, dtype, kind)
    found = call(torch.tensor(0.3, dtype=wide), dtype, kind)
    torch.testing.assert_close(found, expected)
