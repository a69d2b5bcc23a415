"""SPCL (Xie et al., 2021): both domains contrasted against the source's prototypes."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.method import Given, Losses, Method, Start, Step
from reference.methods.teachers import MeanTeacher, agreeing, grid_labels

TEMPERATURE: Final = 100.0
SOFTENED: Final = 1.8  # Divides the logits of the segmentation loss; released.


class SPCL(Method):
    """L = CE(P_s, y_s) + L(q_s, m_s) + L(q_t, m_t), the contrast of unit features by dot product.

    m_s is the source's label where the prediction agrees, m_t what the first network says where it
    is surer than the median of its class over the whole target, or than 0.9. Prototypes are means
    of unit features on m_s, p <- 0.1 p + 0.9 mean of the batch, moved before the loss and not
    renormalised.

    Args:
        absent_shrink: move prototypes of classes that the batch lacks towards 0, as released.

    Source: Xie et al., SPCL, arXiv 2111.12358.
    """

    def __init__(self, given: Given, *, absent_shrink: bool = False) -> None:
        super().__init__()
        self.absent_shrink, self.num_classes = absent_shrink, given.num_classes
        size = given.num_classes, given.dim
        self.bank = pc.PrototypeBank(*size, momentum=0.1, normalize="features")
        self.first = MeanTeacher(given.network)
        self.thresholds = pc.ClassThresholds(given.num_classes, share=0.5, cap=0.9)

    @torch.no_grad()
    def begin(self, start: Start) -> None:
        """Take prototypes from the whole source, and a confidence per class from the target."""
        for batch in start.source():
            seen = start.see(batch.images, "source")
            same = agreeing(grid_labels(batch, seen.logits), seen.logits)
            self.bank.accumulate(self.means(seen.features, same, per_image=True))
        self.bank.commit()
        for drawn in start.ranks.evenly(start.target()):
            sure = self.thresholds.edges.new_zeros(0, self.num_classes)
            if drawn is not None:
                sure = start.see(drawn.images).logits.softmax(dim=1)
            self.thresholds.update(sure)

    def forward(self, step: Step) -> Losses:
        seen, images = step.see(step.source.images, "source"), step.target_batch.images
        new = step.see(images)
        same = agreeing(step.on_grid(step.source_labels, seen.logits), seen.logits)
        with torch.no_grad():
            sure = step.see(images, by=self.first).logits.softmax(dim=1)
        kept = self.thresholds.select(sure).labels
        stats = self.means(seen.features.detach(), same)
        if self.absent_shrink:
            stats = stats._replace(count=torch.ones_like(stats.count))
        self.bank.update_from(stats)
        terms = {
            "source_cross_entropy": step.source_loss(seen.logits / SOFTENED),
            "source_contrast": self.contrast(seen.features, same),
            "target_contrast": self.contrast(new.features, kept),
        }
        return Losses(terms, new, kept)

    def means(
        self, features: Tensor, labels: Tensor, *, per_image: bool = False
    ) -> pc.ClassPrototypes:
        return pc.class_prototypes(
            features, labels, self.num_classes, normalize=True, per_image=per_image
        )

    def contrast(self, features: Tensor, labels: Tensor) -> Tensor:
        """Contrast unit features (B, D, h, w) against prototypes that are as short as they are."""
        return pc.pixel_prototype_contrast(
            F.normalize(features), labels, self.bank.prototypes,
            present=self.bank.present, similarity="dot", temperature=TEMPERATURE,
        )  # fmt: skip
