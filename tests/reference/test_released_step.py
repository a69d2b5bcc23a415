"""The "-released" presets take the step of the authors' trainer, in value and gradient."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.released import released_step
from reference.bicl import contrast
from reference.presets import PRESETS

CLASSES, DIM, GRID, LABELS = 19, 12, (9, 12), (71, 95)
"""As 730 x 730 labels on a grid of 92 x 92: no whole number of pixels per cell."""


def smooth(seed: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Two maps that change slowly, as those of a network do."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, channels, 4, 5, generator=random)
    return interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def label_maps(seed: int, kept: float) -> Tensor:
    """Regions of ten classes; a share of the pixels has its label, in patches."""
    labels = smooth(seed, 10, LABELS).argmax(dim=1)
    sureness = smooth(seed + 100, 1, LABELS)[:, 0]
    least = sureness.flatten(1).quantile(1 - kept, dim=1)[:, None, None]
    return torch.where(sureness >= least, labels, 255)


@pytest.mark.parametrize("kept", [0.15, 0.6, 1.0])
@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-released")])
def test_the_contrast_is_that_of_the_release(name: str, kept: float):
    bicl = contrast(PRESETS[name][1].adaptation.contrast, CLASSES, DIM)
    labels, static = label_maps(1, 1.0), label_maps(2, kept)
    leaves = [smooth(seed, DIM, GRID).requires_grad_() for seed in (3, 4)]
    expected = released_step(leaves[0], labels, leaves[1], static, CLASSES)
    for _ in range(2):
        out = bicl(leaves[0], labels, leaves[1], static)
        found = out.target_to_source, out.source_to_target
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs)
            gradients = (
                torch.autograd.grad(value, leaves, retain_graph=True) for value in (mine, theirs)
            )
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
