"""Two small domains, and a `BiCL` to run them through."""

from typing import Any

import torch
from torch import Tensor

from protocontrast import BiCL, BiCLOutput

CLASSES, DIM = 5, 4


def batch(seed: int, kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Clusters per class, the target's shifted; `kind`: which labels there are, how large."""
    random = torch.Generator().manual_seed(seed)
    size = (4, 3)
    float32 = {"dtype": torch.float32}
    centres = torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(99), **float32) * 2
    present = torch.randperm(CLASSES, generator=random)[:4]
    scale = 3 if kind in ("image", "image without static") else 1
    height, width = size[0] * scale, size[1] * scale
    maps = []
    for shift in (0.0, 1.0):
        truth = present[torch.randint(0, 4, (2, *size), generator=random)]
        noise = torch.randn(2, *size, DIM, generator=random, **float32)
        pixels = (
            centres[truth] + shift * torch.tensor([1.0, -1.0, 0.5, 0.0], **float32) + 0.8 * noise
        )
        fine = truth.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        strange = torch.rand(2, height, width, generator=random, **float32)
        fine = torch.where(strange < 0.2, present[0], fine)
        fine = torch.where(strange > 0.7, 255, fine)
        maps += [pixels.permute(0, 3, 1, 2).double(), fine]
    source, source_labels, target, static = maps
    return source, source_labels, target, None if "without" in kind else static


def made(**settings: Any) -> BiCL:
    defaults = {"threshold": 0.55, "temperature": 0.2, "momentum": 0.7, "bias_momentum": 0.5}
    return BiCL(CLASSES, DIM, **{**defaults, **settings})


def run(bicl: BiCL, seed: int, kind: str = "grid", **how: Any) -> tuple[BiCLOutput, list[Tensor]]:
    source, labels, target, static = batch(seed, kind)
    leaves = [value.float().requires_grad_() for value in (source, target)]
    out = bicl(leaves[0], labels, leaves[1], static, **how)
    gradients = torch.autograd.grad(out.loss, leaves, allow_unused=False)
    return out, list(gradients)


def state(bicl: BiCL) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in bicl.state_dict().items()}


def assert_state_is(bicl: BiCL, before: dict[str, Tensor]) -> None:
    for name, value in bicl.state_dict().items():
        assert torch.equal(value, before[name]), name
