"""Tensors of another class, such as MONAI's, are read as the plain ones they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc


class Tagged(Tensor):
    """Follows every function, as MONAI's MetaTensor does, and takes no bare sizes, as that does."""

    def new_empty(self, size: Any, **settings: Any) -> Tensor:
        if isinstance(size, int):
            raise TypeError("new_empty(): argument 'size' must be tuple of ints, not int")
        return super().new_empty(size, **settings)


def tagged(value: Tensor) -> Tensor:
    found = value.detach().clone().as_subclass(Tagged)
    return found.requires_grad_() if value.is_floating_point() else found


def step(features: Tensor, labels: Tensor, target: Tensor, backend: Any) -> list[Tensor]:
    """Losses of several operators, labels, and the gradients."""
    means = pc.class_prototypes(features, labels, num_classes=5, backend=backend).mean
    bicl = pc.BiCL(5, 8, threshold=0.1, backend=backend)
    out = bicl(features, labels, target)
    near = pc.transfer_labels(target, means, threshold=0.1, backend=backend)
    losses = [
        pc.pixel_prototype_contrast(features, labels, means, backend=backend),
        pc.upsampled_cross_entropy(
            pc.prototype_logits(target, means, backend=backend), labels, backend=backend
        ),
        out.loss,
    ]
    gradients = torch.autograd.grad(torch.stack(losses).sum(), [features, target])
    return [*losses, out.target_labels, near.labels, *gradients]


@pytest.mark.parametrize("backend", ["naive", "eager", "auto"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_step_is_that_of_plain_tensors(backend: str, whole: bool) -> None:
    torch.manual_seed(0)
    features, target = (torch.randn(2, 8, 6, 7, requires_grad=True) for _ in range(2))
    labels = torch.randint(5, (2, 6, 7))
    expected = step(features, labels, target, backend)
    given = tagged(features) if whole else features
    for found, plain in zip(step(given, tagged(labels), target, backend), expected, strict=True):
        assert torch.equal(found.as_subclass(Tensor), plain)
