"""Volumes whose labels are finer than their features: counts, and the whole method."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from protocontrast import (
    BiCL,
    UpsampledCrossEntropyLoss,
    bidirectional_contrast,
    labels_to_grid,
    pixel_prototype_contrast,
    upsampled_cross_entropy,
)
from tests.strategies import label_map, normal


def test_contrast_on_counts_is_contrast_of_nearest_upsampled_features() -> None:
    features, prototypes = normal(0, (2, 5, 2, 3, 2)), normal(1, (3, 5))
    labels = label_map(2, (2, 5, 7, 4), 3)
    counts = labels_to_grid(labels, (2, 3, 2), mode="counts", num_classes=3)
    fine = F.interpolate(features.float(), size=labels.shape[1:], mode="nearest").double()
    ours = pixel_prototype_contrast(features.float().double(), counts, prototypes)
    torch.testing.assert_close(ours, pixel_prototype_contrast(fine, labels, prototypes))


def test_the_module_checks_volumes() -> None:
    logits, labels = normal(0, (2, 3, 2, 3, 2)), label_map(1, (2, 5, 4, 7), 3)
    settings: dict[str, Any] = {"align_corners": True, "reduction": "none"}
    found = UpsampledCrossEntropyLoss(**settings, validate=True)(logits, labels)
    assert torch.equal(found, upsampled_cross_entropy(logits, labels, **settings))


def domains() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two domains of volumes 3 x 2 x 4, their labels twice as high and three times as wide."""
    source, target = normal(0, (2, 2, 5, 3, 2, 4), torch.float32)
    labels = label_map(1, (2, 2, 3, 2, 4), 3)
    fine = labels.repeat_interleave(2, dim=3).repeat_interleave(3, dim=4)
    fine[..., 0] = 255
    return source, fine[0], target, fine[1]


def as_maps(*volumes: Tensor) -> tuple[Tensor, ...]:
    """The slices below each other; where the labels' height is a multiple, cells stay the same."""
    return tuple(volume.flatten(-3, -2) for volume in volumes)


@pytest.mark.parametrize("pairwise", [False, True])
def test_both_directions_with_labels_at_image_resolution(pairwise: bool) -> None:
    volumes = domains()
    found = bidirectional_contrast(*volumes, num_classes=3, pairwise=pairwise)
    expected = bidirectional_contrast(*as_maps(*volumes), num_classes=3, pairwise=pairwise)
    torch.testing.assert_close(found, expected)
    deeper = [v if i % 2 == 0 else v.repeat_interleave(2, dim=1) for i, v in enumerate(volumes)]
    again = bidirectional_contrast(*deeper, num_classes=3, pairwise=pairwise)
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize("settings", [{}, {"prototypes": "batch"}, {"bank_update": "after"}])
@pytest.mark.parametrize("fine", [False, True])
def test_a_step_of_the_method(settings: Any, fine: bool) -> None:
    source, source_labels, target, target_labels = domains()
    if not fine:
        source_labels, target_labels = source_labels[..., ::2, ::3], target_labels[..., ::2, 1::3]
    volumes = source.requires_grad_(), source_labels, target.requires_grad_(), target_labels
    results = []
    for step in (volumes, as_maps(*volumes)):
        bicl = BiCL(3, 5, threshold=0.4, **settings)
        for _ in range(2):
            out = bicl(*step)
        gradients = torch.autograd.grad(out.loss, (source, target))
        results.append((out, gradients, dict(bicl.named_buffers())))
    ours, theirs = results
    assert ours[0].loss > 0
    assert ours[0].target_labels.shape == (2, 3, 2, 4)
    assert torch.equal(ours[0].target_labels.flatten(1, 2), theirs[0].target_labels)
    torch.testing.assert_close(
        ours[0]._replace(target_labels=None), theirs[0]._replace(target_labels=None)
    )
    torch.testing.assert_close(ours[1:], theirs[1:])
