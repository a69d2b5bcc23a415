"""SPCL (Xie et al., 2021): both domains contrasted against the source's prototypes."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import NUM_CLASSES
from reference.data.transforms import matching
from reference.methods.passes import agreeing, whole_output
from reference.training.losses import cell_labels
from reference.training.method import Method, Start, Step, Stepped

TEMPERATURE: Final = 100.0
SOFTENED: Final = 1.8
"""Divides the logits of the segmentation loss; released."""


class SPCL(Method):
    """L = CE(P_s, y_s) + L(q_s, m_s) + L(q_t, m_t), the contrast of unit features by dot product.

    m_s is the source's label where the prediction agrees, m_t what is surer than the median of its
    class, or than 0.9, of a pass before the first step. Prototypes are means of unit features on
    m_s, p <- 0.1 p + 0.9 mean of the batch, moved before the loss and not renormalised.

    Args:
        feature_dim: channels D of the features.
        absent_shrink: move prototypes of classes that the batch lacks towards 0, as released.

    Source:
        Xie et al., SPCL, arXiv 2111.12358.
    """

    labels: Tensor

    def __init__(self, feature_dim: int, *, absent_shrink: bool = False) -> None:
        super().__init__()
        self.absent_shrink = absent_shrink
        self.bank = pc.PrototypeBank(NUM_CLASSES, feature_dim, momentum=0.1, normalize="features")

    def begin(self, start: Start) -> None:
        """Take prototypes from the whole source, and the target's labels."""
        seen = whole_output(start.network, start.source.images)
        same = agreeing(cell_labels(start.source.labels), seen.logits)
        self.bank.update_from(
            pc.class_prototypes(seen.features, same, NUM_CLASSES, normalize=True, per_image=True)
        )
        sure = whole_output(start.network, start.target_images).logits.softmax(dim=1)
        thresholds = pc.ClassThresholds(NUM_CLASSES, share=0.5, cap=0.9)
        thresholds.update(sure)
        self.labels = thresholds.select(sure).labels

    def forward(self, step: Step) -> Stepped:
        """Move the prototypes, then compute the terms of one step."""
        seen, new = step.network(step.source.images), step.network(step.target_batch.images)
        same = agreeing(step.source_labels, seen.logits)
        kept = matching(self.labels, step.target_batch)
        stats = pc.class_prototypes(seen.features.detach(), same, NUM_CLASSES, normalize=True)
        if self.absent_shrink:
            stats = stats._replace(count=torch.ones_like(stats.count))
        self.bank.update_from(stats)
        losses = {
            "source_cross_entropy": step.source_loss(seen.logits / SOFTENED),
            "source_contrast": self.contrast(seen.features, same),
            "target_contrast": self.contrast(new.features, kept),
        }
        return Stepped(losses, new, labels=kept)

    def contrast(self, features: Tensor, labels: Tensor) -> Tensor:
        """Contrast unit features (B, D, h, w) against prototypes that are as short as they are."""
        return pc.pixel_prototype_contrast(
            torch.nn.functional.normalize(features), labels, self.bank.prototypes,
            present=self.bank.present, similarity="dot", temperature=TEMPERATURE,
        )  # fmt: skip
