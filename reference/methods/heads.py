"""What stands beside a network: heads of a contrast, discriminators, changes at test time."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.networks.output import Domain, Output, Segmenter, seeded
from reference.run.ranks import Ranks

_GROUPS: Final = 8


class Projector(nn.Sequential):
    """Convolutions of D to D channels, and unit length; of random weights by the seed alone.

    In `kinds` "c" is a 1x1 convolution, "n" GroupNorm where batch norm was published, of 8 groups
    or of as many as divide both 8 and D, "r" a ReLU.
    """

    def __init__(self, dim: int, kinds: str, seed: int) -> None:
        made = {
            "c": lambda: nn.Conv2d(dim, dim, 1),
            "n": lambda: nn.GroupNorm(gcd(_GROUPS, dim), dim),
            "r": lambda: nn.ReLU(),
        }
        with seeded(seed):
            super().__init__(*(made[kind]() for kind in kinds))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(super().forward(features), dim=1)


def pixel_rows(features: Tensor) -> Tensor:
    """Features (B, D, h, w) as one row per pixel, (B h w, D)."""
    return features.movedim(1, -1).flatten(0, 2)


def lengthened(maps: Tensor, least: int, multiple: int = 1) -> Tensor:
    """Maps (B, K, h, w) whose last row and column are repeated, to sides that a layer can read."""
    for dim in (-2, -1):
        missing = max(least - maps.shape[dim], -maps.shape[dim] % multiple)
        last = maps.narrow(dim, -1, 1).repeat_interleave(missing, dim)
        maps = torch.cat([maps, last], dim) if missing else maps
    return maps


def classes_of(means: pc.ClassPrototypes) -> Tensor:
    """Labels (C,) of class means: the class, or 255 where it is absent."""
    classes = torch.arange(len(means.present), device=means.present.device)
    return torch.where(means.present, classes, IGNORE)


class Discriminators(nn.Module):
    """Layers that learn against the network, by an Adam of their own.

    They are frozen but inside `learning`: the loop's optimiser does not take them, and no gradient
    of the loop's loss is left on them. The state of Adam is part of the state dict.
    """

    def __init__(self, layers: nn.Module, learning_rate: float, betas: tuple[float, float]) -> None:
        super().__init__()
        self.layers = layers.requires_grad_(False)
        self.optimiser = torch.optim.Adam(layers.parameters(), lr=learning_rate, betas=betas)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Let gradients reach the layers."""
        self.layers.requires_grad_(True)
        try:
            yield
        finally:
            self.layers.requires_grad_(False)

    def move(self, ranks: Ranks) -> None:
        """Take one step by the gradients so far, averaged over the ranks, and drop them."""
        with self.learning():
            ranks.average_gradients(self.layers.parameters())
        self.optimiser.step()
        self.optimiser.zero_grad()

    def get_extra_state(self) -> Tensor:
        return torch.cat([one.detach().flatten().cpu() for one in self._remembered()])

    def set_extra_state(self, state: Tensor) -> None:
        held = self._remembered()
        for one, new in zip(held, state.split([each.numel() for each in held]), strict=True):
            one.copy_(new.view_as(one))

    def _remembered(self) -> list[Tensor]:
        """Adam's own tensors, weight by weight; zeros before its first step, as it would make."""
        held = []
        for weight in self.layers.parameters():
            state = self.optimiser.state[weight]
            if not state:
                moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                state.update(step=torch.zeros((), device="cpu"), **moments)
            held += state.values()
        return held


class Adjusted(Segmenter):
    """A network as a method uses it: `before` adds to its images, `after` changes its output."""

    def __init__(
        self, network: Segmenter, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__(
            feature_dim=network.feature_dim, num_classes=network.num_classes,
            stride=network.stride, align_corners=network.align_corners,
        )  # fmt: skip
        self.network, self.before, self.after = network, before, after

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        if self.before is not None:
            images = images + self.before(images)
        output = Output(*self.network(images, domain=domain))
        return output if self.after is None else Output(*self.after(output))
