"""Sums of unit pixels of which a program has all channels, in several blocks."""

import pytest
import torch
from torch import Tensor

from protocontrast import class_prototypes
from protocontrast.kernels.launch import recorded
from tests.interpreter.small_spans import span_budget
from tests.strategies import label_map, normal

SHAPE, CLASSES = (2, 70, 200), 3
DTYPES = [torch.bfloat16, torch.float64]


def sums(features: Tensor, labels: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    found = class_prototypes(features, labels, CLASSES, normalize=True, backend=backend)
    return found.mean, found.count


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_those_of_naive(dtype: torch.dtype, slot_bytes: int) -> None:
    """Three blocks of channels, the last of them not full."""
    features, labels = normal(0, SHAPE).to(dtype), label_map(1, (2, 200), CLASSES)
    with recorded("interpreter") as launches:
        sums(features, labels, "triton")
    (launch,) = launches
    assert launch.meta.PROGRAMS and 2 * launch.meta.BLOCK_D < launch.meta.GROUP_D == SHAPE[1]
    with span_budget(slot_bytes):
        ours = sums(features, labels, "triton")
    for one, other in zip(ours, sums(features.double(), labels, "naive"), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_with_its_class(dtype: torch.dtype) -> None:
    features, labels = normal(0, SHAPE).to(dtype), label_map(1, (2, 200), CLASSES)
    labels[0, :2] = torch.tensor([1, 255])
    clean, _ = sums(features, labels, "triton")
    features[0, 40, :2] = float("nan")
    found, _ = sums(features, labels, "triton")
    assert found[1].isnan().all()
    for other in (0, 2):
        torch.testing.assert_close(found[other], clean[other], rtol=1e-5, atol=1e-6)
