"""Products of 16-bit features in kernels lose nothing, and survive numbers that float16 lacks."""

import pytest
import torch

from protocontrast import pixel_prototype_contrast
from tests.agreement import values_and_gradients, widened
from tests.strategies import ContrastCase


@pytest.mark.parametrize(
    ("precision", "low", "high"),
    [("highest", 0, 1e-6), ("high", 0, 1e-6), ("medium", 1e-5, 1e-2)],
)
def test_16_bit_operands_lose_nothing_unless_asked(precision: str, low: float, high: float) -> None:
    """float16 products of two halves are as exact as float32 ones; the upper half alone is not."""
    case = ContrastCase(6, (2, 33, 40), 5, dtype=torch.float16)
    call = {**case.tensors(), **case.settings}
    truth = pixel_prototype_contrast(**widened(call), backend="naive")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        loss = pixel_prototype_contrast(**call, backend="triton")
    finally:
        torch.set_float32_matmul_precision(before)
    assert low <= abs(float(loss) / float(truth) - 1) <= high


def test_float16_products_survive_tiny_and_huge_numbers() -> None:
    """A mean over many pixels has gradients, and a long prototype entries, outside float16."""
    case = ContrastCase(
        8, (1, 16, 9), 3, dtype=torch.float16, similarity="dot", temperature=1e5, reduction="sum"
    )
    call = {**case.tensors(), **case.settings}
    call["prototypes"] = call["prototypes"] * 1e5
    call["pixel_weight"] = torch.full((1, 9), 1e-6)
    ours, plain = (
        values_and_gradients(
            pixel_prototype_contrast, {**call, "backend": backend}, ["prototypes"], 0
        )[1]["prototypes"]
        for backend in ("triton", "naive")
    )
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
