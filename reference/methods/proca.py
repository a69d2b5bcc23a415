"""ProCA (Jiang et al., ECCV 2022): contrast at two levels against prototypes of both domains."""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.lovasz import lovasz_softmax
from reference.methods.passes import whole_output
from reference.networks.output import Output
from reference.training.losses import cell_labels
from reference.training.method import Method, Start, Step, Stepped

ALL: Final = torch.ones(NUM_CLASSES, dtype=torch.bool)
contrast: Final = partial(pc.pixel_prototype_contrast, present=ALL, temperature=50.0)
LEAST_LOGIT: Final = 0.9
"""Of a target pixel that is labelled: of the logit itself, not of a probability; released."""


class ProCA(Method):
    """CE(P_s, y_s) + 0.75 Lovasz(P_s, y_s) + sum over both levels of L(s -> p) + L(t -> p), cosine.

    A prototype is the mean over all pixels of its class seen so far, of source and target, each of
    the same weight: p <- (n p + sum of the batch) / (n + pixels of the batch). A pass over the
    source starts it. It moves by the target, then by the source, then the loss is taken. That of a
    class that nothing has shown is 0 and stays in the sum, with a cosine of 0.

    Args:
        feature_dim: channels D of the features.

    Source: Jiang et al., ProCA, ECCV 2022, arXiv 2207.06654.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.features = pc.PrototypeBank(NUM_CLASSES, feature_dim, rule="cumulative")
        self.logits = pc.PrototypeBank(NUM_CLASSES, NUM_CLASSES, rule="cumulative")

    def begin(self, start: Start) -> None:
        """Take both levels' prototypes from the whole source."""
        seen = whole_output(start.network, start.source.images)
        self.update(seen, cell_labels(start.source.labels))

    def forward(self, step: Step) -> Stepped:
        """Move the prototypes, then compute the terms of one step."""
        seen, new = step.network(step.source.images), step.network(step.target_batch.images)
        kept = sure_labels(new.logits)
        self.update(new, kept)
        self.update(seen, step.source_labels)
        losses = {
            "source_cross_entropy": step.source_loss(seen.logits),
            "source_lovasz": 0.75 * lovasz_softmax(seen.logits, step.source_labels),
            **self.contrast("source", seen, step.source_labels),
            **self.contrast("target", new, kept),
        }
        return Stepped(losses, new, labels=kept)

    def update(self, seen: Output, labels: Tensor) -> None:
        """Count pixels in at both levels."""
        self.features.update(seen.features.detach(), labels)
        self.logits.update(seen.logits.detach(), labels)

    def contrast(self, domain: str, seen: Output, labels: Tensor) -> dict[str, Tensor]:
        """The terms of a domain, one per level."""
        banks = {"logits": self.logits, "features": self.features}
        return {
            f"{domain}_{level}": contrast(pixels, labels, bank.prototypes)
            for (level, bank), pixels in zip(banks.items(), seen, strict=True)
        }


def sure_labels(logits: Tensor) -> Tensor:
    """The predicted class (B, h, w) where its logit is at least 0.9, else 255."""
    most = logits.detach().max(dim=1)
    return torch.where(most.values >= LEAST_LOGIT, most.indices, IGNORE)
