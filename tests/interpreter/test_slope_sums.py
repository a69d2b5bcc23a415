"""Gradients of a contrast from logits that its forward has left, where channels are many."""

from unittest import mock

import pytest
import torch
from torch import Tensor

from protocontrast import pixel_prototype_contrast, prototype_logits
from protocontrast.calls import ContrastCall
from protocontrast.kernels import slope_sums
from protocontrast.kernels.contrast import contrast
from protocontrast.kernels.launch import recorded
from protocontrast.kernels.prototypes import leaves_logits, ready_for_contrast
from tests.interpreter.small_spans import span_budget
from tests.strategies import ContrastCase, label_map, normal

CHANNELS, CLASSES = 150, 3
DTYPES = [torch.float16, torch.float32, torch.float64]


def gradients(
    call: dict[str, object], backend: str, wide: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    given = dict(call)
    leaves = []
    for name in ("features", "prototypes"):
        leaf = given[name]
        assert torch.is_tensor(leaf)
        given[name] = (leaf.double() if wide else leaf).detach().clone().requires_grad_()
        leaves.append(given[name])
    loss = pixel_prototype_contrast(**given, backend=backend)
    return torch.autograd.grad(loss, leaves)


def starts(call: dict[str, object]) -> list[str]:
    with recorded("interpreter") as launches:
        gradients(call, "triton")
    return [each.kernel.__name__ for each in launches]


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("similarity", "soft"), [("cosine", False), ("dot", True)])
def test_gradients_are_those_of_naive(
    similarity: str, soft: bool, dtype: torch.dtype, slot_bytes: int
) -> None:
    """Three groups of channels, the last of which ends within a block; one span and many."""
    case = ContrastCase(3, (2, CHANNELS, 200), CLASSES, dtype=dtype, similarity=similarity)
    call = {**case.tensors(), **case.settings, "temperature": 0.5, "reduction": "sum"}
    if soft:
        call["labels"] = torch.rand(2, CLASSES, 200)
    with mock.patch.object(slope_sums, "AT_ONCE", 64), span_budget(slot_bytes):
        assert "slope_sums_kernel" in starts(call)
        ours = gradients(call, "triton")
    for one, other in zip(ours, gradients(call, "naive", wide=True), strict=True):
        rtol = 2e-3 if one.dtype == torch.float16 else 2e-5
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=2e-5 * other.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_ignored_pixels_hold_reaches_no_sum(dtype: torch.dtype) -> None:
    """0 times NaN is NaN, so the sums are taken once more, with care."""
    case = ContrastCase(5, (1, CHANNELS, 70), CLASSES, dtype=dtype)
    call = {**case.tensors(), **case.settings}
    ignored = call["labels"] == 255
    assert ignored.any()
    clean = gradients(call, "triton")
    features = call["features"].movedim(1, -1).clone()
    features[ignored] = float("nan")
    features[0, 0] = torch.where(ignored[0, 0], float("inf"), features[0, 0])
    found = gradients({**call, "features": features.movedim(-1, 1)}, "triton")
    for one, other in zip(found, clean, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def contrasted(dtype: torch.dtype, channels: int, classes: int, similarity: str) -> ContrastCall:
    features, labels = normal(0, (2, channels, 40)).to(dtype), label_map(1, (2, 40), classes)
    prototypes = normal(2, (classes, channels), torch.float32)
    return ContrastCall(features, labels, prototypes, None, None, None, similarity, 0.5, False, 255)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_what_is_left_are_the_logits(similarity: str) -> None:
    call = contrasted(torch.float32, CHANNELS, CLASSES, similarity)
    *_, logits = ready = ready_for_contrast(call)
    contrast(call, *ready)
    expected = prototype_logits(
        call.features, call.prototypes, similarity=similarity, temperature=0.5, backend="naive"
    )
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "channels", "classes", "similarity", "expected"),
    [
        (torch.float16, 150, 3, "cosine", True),
        (torch.float16, 150, 9, "cosine", True),
        # A number per class takes an eighth of the features.
        (torch.float16, 160, 10, "cosine", False),
        (torch.float32, 160, 10, "dot", True),
        # Programs keep a tile of all channels, which is read once as it is.
        (torch.float16, 64, 3, "cosine", False),
        (torch.float32, 150, 3, "euclidean", False),
        (torch.float32, 2048, 33, "cosine", False),
    ],
)
def test_logits_are_left_where_they_are_few(
    dtype: torch.dtype, channels: int, classes: int, similarity: str, expected: bool
) -> None:
    call = contrasted(dtype, channels, classes, similarity)
    assert leaves_logits(call) is expected
    *_, logits = ready_for_contrast(call)
    assert (logits.numel() > 0) is expected
