"""Discriminators of predictions, least-squares: the source should score 0, other domains 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from reference.data.classes import NUM_CLASSES

_WIDTH: Final = 16
_LEARNING_RATE: Final = 1e-4
_POLY_POWER: Final = 0.9


def _discriminator(num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_classes, _WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(_WIDTH, 2 * _WIDTH, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * _WIDTH, 1, 3, padding=1),
    )


class Discriminators(nn.Module):
    """One discriminator for every domain beside the source, with an optimiser of their own.

    The network minimises A = sum_k mean D_k(P_k)^2; D_k minimises
    (mean D_k(P_s)^2 + mean (D_k(P_k) - 1)^2) / 2. Sizes are own, for the toy's network.

    Args:
        seed: of the initial weights; torch's own random state is left as it was.
        domains: how many others there are.
        num_classes: channels C of what is judged.

    Source:
        Mao et al., LSGAN, ICCV 2017; Adam with 1e-4 as Bi-Mix released.
    """

    def __init__(self, seed: int, domains: int, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.each = nn.ModuleList(_discriminator(num_classes) for _ in range(domains))
        self.optimiser = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.99))

    def forward(self, others: Sequence[Tensor]) -> Tensor:
        """Compute A of the other domains' probabilities, each (B, C, h, w)."""
        scores = [judge(shown) for judge, shown in zip(self.each, others, strict=True)]
        return torch.stack([score.square().mean() for score in scores]).sum()

    def learn(self, source: Tensor, others: Sequence[Tensor], progress: float) -> None:
        """Move the discriminators once; no gradient reaches the probabilities.

        Args:
            source, others: probabilities, each (B, C, h, w).
            progress: share of the run that is over.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - progress) ** _POLY_POWER
        self.optimiser.zero_grad()
        for judge, shown in zip(self.each, others, strict=True):
            wrong = judge(source.detach()).square().mean()
            wrong = wrong + (judge(shown.detach()) - 1).square().mean()
            (wrong / 2).backward()
        self.optimiser.step()
