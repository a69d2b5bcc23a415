"""BLDA (arXiv 2512.06886): class-mix training on logits that are balanced between the classes."""

from dataclasses import replace
from typing import Final

import torch
from torch import nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Step
from reference.methods.dacs import DACS, Mixture
from reference.methods.heads import Adjusted
from reference.networks.output import Output, Segmenter

PIXELS: Final = 32
"""Of each class in a part; released 500 of two images of 512 x 512, more than most have here."""
RAMP: Final = 1500 / 40000  # Share of the run over which the tables' momentum rises; released.


class BLDA(DACS):
    """DACS with z - 0.1 delta in both cross-entropies, delta = A^{-1}(F(z)) - z without gradient.

    F is the distribution of the logits of a channel on pixels of a class, a mixture of five normal
    distributions, one table per domain; A that of all logits of pixels' own classes, or of all
    others, on the source. At test time the score of class l is softmax_l(z + 0.2 delta_l), with the
    delta of label l.

    Args:
        strength: of the difference that is taken off; published 0.1. 0 is DACS in training.
        test_strength: of the difference that is added at test time; 0.2 in the release. 0: none.
        pixels: sampled of each class; classes with fewer keep their table.

    Source: Balanced Learning for Domain Adaptive Semantic Segmentation, arXiv 2512.06886.
    """

    def __init__(
        self, given: Given, strength: float = 0.1, test_strength: float = 0.2, pixels: int = PIXELS
    ) -> None:
        super().__init__(given)
        self.test_strength = test_strength
        self.balance = pc.LogitBalance(
            given.num_classes, 5, strength=strength, pixels=pixels, seed=given.seed
        )

    def mixture(self, step: Step) -> Mixture:
        """What DACS has seen, with balanced logits; pasted pixels read the source's table."""
        seen, balance = super().mixture(step), self.balance
        source, mixed = seen.source.logits, seen.mixed.logits
        y = step.on_grid(step.source_labels, source)
        balance.ramp = max(1, round(RAMP * step.steps))
        balance.update(source, y)
        source = balance(source, y)
        pasted = step.on_grid(seen.from_source.long(), mixed).bool()
        y = step.on_grid(seen.mixed_labels, mixed)
        # Pixels of weight 0 say nothing about the target, either.
        new = y.masked_fill(pasted | (seen.share == 0), IGNORE)
        balance.update(mixed, new, domain="target")
        mixed = balance(mixed, y.masked_fill(~pasted, IGNORE))
        mixed = balance(mixed, new, domain="target")
        return replace(
            seen,
            source=seen.source._replace(logits=source),
            mixed=seen.mixed._replace(logits=mixed),
        )

    def at_test(self, network: Segmenter) -> Segmenter:
        """Align the logits of every image with the target's tables."""
        if not self.test_strength:
            return network
        return Adjusted(network, after=Alignment(self.balance, self.test_strength))


class Alignment(nn.Module):
    """Puts log softmax_l(z + strength delta_l) in the place of logit l."""

    def __init__(self, balance: pc.LogitBalance, strength: float) -> None:
        super().__init__()
        self.balance, self.strength = balance, strength

    def forward(self, output: Output) -> Output:
        """Score every class as if it were the label."""
        z, scores = output.logits.float(), []
        for label in range(z.shape[1]):
            delta = self.balance.delta(z, torch.full_like(z[:, 0], label).long(), domain="target")
            scores.append((z + self.strength * delta).log_softmax(dim=1)[:, label])
        return Output(torch.stack(scores, dim=1), output.features)
