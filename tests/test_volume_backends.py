"""Volumes on every backend: values and gradients of the specification for the same pixels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast import (
    class_prototypes,
    distribution_contrast,
    pixel_prototype_contrast,
    prototype_logits,
    transfer_labels,
    upsampled_cross_entropy,
)
from tests.strategies import label_map, laid_out, normal

SPACE = (2, 3, 2)
LABELS = label_map(1, (2, *SPACE), 3)
FINE = label_map(2, (2, 4, 3, 5), 4)
PROTOTYPES = normal(3, (3, 4), torch.float32)
VARIANCE = normal(4, (3, 4), torch.float32).square()

# Each from features (B, 4, ...) and labels of the same pixels, as volumes or as rows.
CALLS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "contrast": lambda features, labels, backend: pixel_prototype_contrast(
        features, labels, PROTOTYPES, reduction="none", backend=backend
    ),
    "distribution": lambda features, labels, backend: distribution_contrast(
        features, labels, PROTOTYPES, VARIANCE, temperature=1.0, reduction="none", backend=backend
    ),
    "logits": lambda features, labels, backend: prototype_logits(
        features, PROTOTYPES, backend=backend
    ),
    "means": lambda features, labels, backend: (
        class_prototypes(features, labels, 3, per_image=True, backend=backend).mean
    ),
}


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients(name: str, layout: str, backend: str) -> None:
    features = laid_out(normal(0, (2, 4, *SPACE), torch.float32), layout)
    rows = features.detach().flatten(2).requires_grad_()
    found = CALLS[name](features.requires_grad_(), LABELS, backend)
    expected = CALLS[name](rows, LABELS.flatten(1), "naive")
    if name != "means":
        assert found.shape[-3:] == SPACE
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
    slopes = normal(5, tuple(expected.shape), torch.float32)
    ours = torch.autograd.grad(found, features, slopes.reshape(found.shape))[0]
    theirs = torch.autograd.grad(expected, rows, slopes)[0]
    torch.testing.assert_close(ours.flatten(2), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_transfer(backend: Any) -> None:
    features = normal(0, (2, 4, *SPACE), torch.float32)
    settings: dict[str, Any] = {"threshold": 0.4}
    found = transfer_labels(features, PROTOTYPES, **settings, backend=backend)
    rows = transfer_labels(features.flatten(2), PROTOTYPES, **settings, backend="naive")
    assert found.labels.shape == (2, *SPACE)
    assert torch.equal(found.labels.flatten(1), rows.labels)
    torch.testing.assert_close(found.confidence.flatten(1), rows.confidence)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_upsampling(align_corners: bool, backend: Any) -> None:
    results = []
    for chosen in (backend, "naive"):
        leaf = normal(0, (2, 4, *SPACE), torch.float32).requires_grad_()
        loss = upsampled_cross_entropy(
            leaf, FINE, align_corners=align_corners, reduction="none", backend=chosen
        )
        assert loss.shape == FINE.shape
        slopes = normal(5, tuple(FINE.shape), torch.float32)
        results.append((loss.detach(), torch.autograd.grad(loss, leaf, slopes)[0]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
