"""ProtoSeg (Zhou et al., CVPR 2022): ten prototypes per class in place of a classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.passes import agreeing, whole_output
from reference.methods.settings import TEACHER
from reference.training.losses import cell_labels
from reference.training.method import Method, Start, Step, Stepped

ROWS = NUM_CLASSES * 10


class PrototypeHead(nn.Module):
    """Logits z_c = LayerNorm_c(max_m cos(f, p_cm)), of the prototypes in a bank."""

    def __init__(self, bank: pc.PrototypeBank) -> None:
        super().__init__()
        self.bank = bank
        self.norm = nn.LayerNorm(NUM_CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits (B, C, h, w) of features (B, D, h, w)."""
        # A copy, since the bank moves before the gradient is taken.
        rows = self.bank.prototypes.clone()
        cosines = pc.prototype_logits(features, rows, temperature=1.0)
        nearest = pc.subclass_max(cosines, NUM_CLASSES)
        return self.norm(nearest.movedim(1, -1)).movedim(-1, 1)


class ProtoSeg(Method):
    """L = CE(z, y) + 0.01 L(f -> p_m) + 0.001 mean (1 - cos(f, p_m))^2, on the source alone.

    p_m is the prototype that a pixel is assigned to, in equal shares within its class; the contrast
    runs over all 190 without a temperature. It moves towards the mean direction of its rightly
    predicted pixels; at first it is theirs over the whole source, shared out by random directions.

    Args:
        feature_dim: channels D of the features.

    Source:
        Zhou et al., ProtoSeg, CVPR 2022, arXiv 2203.15102.
    """

    uses_target = False

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.bank = pc.PrototypeBank(ROWS, feature_dim, momentum=TEACHER, normalize="prototypes")

    def begin(self, start: Start) -> None:
        """Take prototypes from the whole source, and let them classify."""
        drawn = torch.Generator().manual_seed(start.seed)
        rows = torch.randn(ROWS, self.bank.dim, generator=drawn)
        seen = whole_output(start.network, start.source.images)
        right = agreeing(cell_labels(start.source.labels), seen.logits)
        nearest = pc.assign_subclasses(seen.features, right, rows.unflatten(0, (NUM_CLASSES, -1)))
        self.bank.update_from(pc.class_prototypes(seen.features, nearest, ROWS, normalize=True))
        self.bank.update_from(pc.ClassPrototypes(rows, (~self.bank.present).float()))
        start.network.head = PrototypeHead(self.bank)

    def forward(self, step: Step) -> Stepped:
        """Compute the terms of one step, then move the prototypes."""
        seen, labels = step.network(step.source.images), step.source_labels
        rows = self.bank.prototypes.clone()
        nearest = pc.assign_subclasses(seen.features, labels, rows.unflatten(0, (NUM_CLASSES, -1)))
        contrast = pc.pixel_prototype_contrast(seen.features, nearest, rows, temperature=1.0)
        losses = {
            "source_cross_entropy": step.source_loss(seen.logits),
            "prototype_contrast": 0.01 * contrast,
            "prototype_pull": 0.001 * pc.prototype_pull(seen.features, nearest, rows),
        }
        right = torch.where(seen.logits.argmax(dim=1) == labels, nearest, IGNORE)
        means = pc.class_prototypes(seen.features.detach(), right, ROWS, normalize=True)
        self.bank.update_from(means._replace(mean=self.bank.on_scale(means.mean)))
        return Stepped(losses)
