"""BLDA (arXiv 2512.06886): class-mix training on logits that are balanced between the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from torch import Tensor

import protocontrast as pc
from reference.data.classes import NUM_CLASSES
from reference.methods.dacs import DACS, Seen
from reference.networks.output import Domain, Output
from reference.training.losses import cell_labels
from reference.training.method import Start, Step

PIXELS: Final = 32
"""Cells sampled of each class in a step, and the fewest that count; released 500 pixels of two
images of 512 x 512, which at this size would leave the largest classes only."""


class BLDA(DACS):
    """DACS with z - 0.1 delta in both cross-entropies, delta = A^{-1}(F(z)) - z without gradient.

    F is the distribution of the logits of a channel on pixels of a class, a mixture of five normal
    distributions, one table per domain; A that of all logits of pixels' own classes, or of all
    others, on the source.

    Args:
        strength: of the difference that is taken off; published 0.1. 0 is DACS.
        pixels: of each class in a step; classes with fewer keep their table.

    Source:
        Balanced Learning for Domain Adaptive Semantic Segmentation, arXiv 2512.06886.
    """

    def __init__(self, *, strength: float = 0.1, pixels: int = PIXELS) -> None:
        super().__init__()
        self.strength, self.pixels = strength, pixels

    def begin(self, start: Start) -> None:
        """Copy the teacher and start with empty tables."""
        super().begin(start)
        self.balance = pc.LogitBalance(
            NUM_CLASSES, 5, momentum=0.99, strength=self.strength, pixels=self.pixels,
            seed=start.seed,
        )  # fmt: skip

    def seen(self, step: Step) -> Seen:
        """What DACS has seen, with balanced logits."""
        seen = super().seen(step)
        return replace(
            seen,
            source=self.balanced(seen.source, step.source_labels, "source"),
            mixed=self.balanced(seen.mixed, cell_labels(seen.mixed_labels), "target"),
        )

    def balanced(self, output: Output, labels: Tensor, domain: Domain) -> Output:
        """Follow the distributions of a domain, then take the difference off."""
        logits = output.logits
        self.balance.update(logits, labels, domain=domain)
        return Output(self.balance(logits, labels, domain=domain), output.features)
