"""BLDA (arXiv 2512.06886): class-mix training on logits that are balanced between the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import torch

import protocontrast as pc
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.dacs import DACS, Seen, cells
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork
from reference.training.losses import cell_labels
from reference.training.method import Start, Step

PIXELS: Final = 32
"""Of each class in a step; released 500 of two images of 512 x 512, more than most have here."""
RAMP: Final = 1500 / 40000
"""Share of the run over which the tables' momentum rises; released."""


class BLDA(DACS):
    """DACS with z - 0.1 delta in both cross-entropies, delta = A^{-1}(F(z)) - z without gradient.

    F is the distribution of the logits of a channel on pixels of a class, a mixture of five normal
    distributions, one table per domain; A that of all logits of pixels' own classes, or of all
    others, on the source. At test time the score of class l is softmax_l(z + 0.2 delta_l), with the
    delta of label l.

    Args:
        strength: of the difference that is taken off; published 0.1. 0 is DACS in training.
        test_strength: of the difference that is added at test time; 0.2 in the release. 0: none.
        pixels: sampled of each class in a step; classes with fewer keep their table.

    Source: Balanced Learning for Domain Adaptive Semantic Segmentation, arXiv 2512.06886.
    """

    def __init__(
        self, *, strength: float = 0.1, test_strength: float = 0.2, pixels: int = PIXELS
    ) -> None:
        super().__init__()
        self.strength, self.test_strength, self.pixels = strength, test_strength, pixels

    def begin(self, start: Start) -> None:
        """Copy the teacher and start with empty tables."""
        super().begin(start)
        self.balance = pc.LogitBalance(
            NUM_CLASSES, 5, strength=self.strength, pixels=self.pixels, seed=start.seed
        )

    def seen(self, step: Step) -> Seen:
        """What DACS has seen, with balanced logits; pasted pixels read the source's table."""
        seen, balance, y = super().seen(step), self.balance, step.source_labels
        balance.ramp = max(1, round(RAMP * step.steps))
        balance.update(seen.source.logits, y)
        source = balance(seen.source.logits, y)
        pasted, y, mixed = cells(seen.from_source), cell_labels(seen.mixed_labels), seen.mixed
        # Pixels of weight 0 say nothing about the target, either.
        new = y.masked_fill(pasted | (seen.share == 0), IGNORE)
        balance.update(mixed.logits, new, domain="target")
        logits = balance(mixed.logits, y.masked_fill(~pasted, IGNORE))
        logits = balance(logits, new, domain="target")
        outputs = seen.source._replace(logits=source), mixed._replace(logits=logits)
        return replace(seen, source=outputs[0], mixed=outputs[1])

    def end(self, network: SegmentationNetwork) -> None:
        """Align the logits of every image with the target's tables."""
        if self.test_strength:
            network.register_forward_hook(self.aligned)

    def aligned(self, network: object, images: Any, output: Output) -> Output:
        """Put log softmax_l(z + 0.2 delta_l) in the place of logit l."""
        z, scores = output.logits, []
        for label in range(NUM_CLASSES):
            delta = self.balance.delta(z, torch.full_like(z[:, 0], label).long(), domain="target")
            scores.append((z + self.test_strength * delta).log_softmax(dim=1)[:, label])
        return output._replace(logits=torch.stack(scores, dim=1).to(z.dtype))
