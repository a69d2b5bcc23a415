"""Kernels see the directions of pixels and prototypes, whatever their lengths."""

import pytest
import torch

import protocontrast as pc
from protocontrast.calls import ContrastCall
from protocontrast.kernels.contrast import contrast
from protocontrast.kernels.contrast_backward import contrast_backward
from protocontrast.kernels.prototypes import ready_for_contrast
from tests.differentiable import scene
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


@pytest.mark.parametrize("name", [name for name in CALLS if name not in OF_MEANS])
@pytest.mark.parametrize("exponent", [-37.0, 37.0])
def test_lengths_up_to_which_kernels_are_exact(name: str, exponent: float) -> None:
    """As docs/faq.md says."""
    drawn = Lengths(3, "one", exponent), Lengths(1, "one", 0.0)
    assert_right(name, drawn, torch.float32, "triton")


def test_logits_up_to_which_kernels_are_exact() -> None:
    logits = normal(0, (1, 3, 2, 2), torch.float32)
    logits *= 2e38 / logits.abs().max()
    labels = torch.arange(25).reshape(1, 5, 5) % 3
    losses = [
        pc.upsampled_cross_entropy(logits, labels, reduction="none", backend=backend)
        for backend in ("triton", "naive")
    ]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_forward_leaves_its_lengths_to_its_backward(dtype: torch.dtype) -> None:
    """By which the gradients are what they are when lengths are taken again."""
    features, labels, prototypes = scene(dtype)
    scale = torch.tensor([1e-3, 1.0, 0.0], dtype=dtype)
    features = features * scale[torch.arange(features.shape[2]) % 3]
    call = ContrastCall(features, labels, prototypes, None, None, None, "cosine", 0.5, False, 255)
    ready = ready_for_contrast(call)
    loss, _, lse = contrast(call, *ready)
    torch.testing.assert_close(ready[2], features.float().norm(dim=1), rtol=1e-6, atol=1e-12)
    upstream = torch.ones_like(loss)
    for wants in ((True, True), (False, True), (True, False)):
        ours = contrast_backward(upstream, call, wants, lse, *ready)
        again = contrast_backward(upstream, call, wants, lse)
        for one, other in zip(ours, again, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
