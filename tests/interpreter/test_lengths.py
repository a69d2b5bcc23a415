"""Kernels see the directions of pixels and prototypes, whatever their lengths."""

import pytest
import torch

from tests.strategies import normal
from tests.test_lengths import (
    CALLS,
    CHANNELS,
    CLASSES,
    OF_MEANS,
    PIXELS,
    Lengths,
    _results,
    assert_near,
    assert_right,
    labelled,
)
from tests.test_lengths import test_euclidean_distances_of_any_scale as euclidean

SHORT, LONG = Lengths(1, "one", -30.0), Lengths(2, "one", 30.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in OF_MEANS])
def test_mixed_lengths(name: str, dtype: torch.dtype) -> None:
    assert_right(name, (Lengths(3, "mixed"), SHORT), dtype, "triton")
    assert_right(name, (Lengths(4, "zeros"), Lengths(5, "mixed")), dtype, "triton")


@pytest.mark.parametrize("name", OF_MEANS)
@pytest.mark.parametrize("drawn", [SHORT, LONG])
def test_common_lengths(name: str, drawn: Lengths) -> None:
    assert_right(name, (drawn, drawn._replace(seed=9)), torch.float32, "triton")


@pytest.mark.parametrize("exponent", [-30.0, -20.0, 0.0, 20.0, 30.0])
def test_distances(exponent: float) -> None:
    euclidean.hypothesis.inner_test(exponent=exponent, seed=0, backend="triton")


@pytest.mark.parametrize("name", ["contrast", "target pass", "pull"])
def test_mixed_lengths_within_float16(name: str) -> None:
    """Slopes over lengths of 1e-4 to 1e3 do not fit one scale in 16 bits."""
    unit = torch.nn.functional.normalize(normal(0, (PIXELS, CHANNELS)), dim=1)
    features = (unit * torch.logspace(-4, 3, PIXELS, dtype=torch.float64)[:, None]).half()
    prototypes, labels = normal(1, (CLASSES, CHANNELS), torch.float32), labelled(2)
    truth = _results(CALLS[name], features.double(), prototypes.double(), labels, "naive")
    found = _results(CALLS[name], features.clone(), prototypes.clone(), labels, "triton")
    assert_near(found[0], truth[0], torch.ones(1), 1e-4)
    assert_near(found[1], truth[1], 1 / features.double().norm(dim=1), 1e-2)
    assert_near(found[2], truth[2], 1 / prototypes.double().norm(dim=1), 2e-5)
