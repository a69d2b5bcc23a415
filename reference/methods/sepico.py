"""SePiCo (Xie et al., TPAMI 2023): pixels against the source's means, distributions or a bank."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import NUM_CLASSES
from reference.methods.dacs import DACS, Seen, strong
from reference.methods.mean_teacher import mean_teacher
from reference.methods.projector import Projector, classes_of, pixel_rows
from reference.methods.settings import WARMUP
from reference.training.method import Start, Step

TAU: Final = 100.0


class SePiCo(DACS):
    """DACS + contrast + r, of either domain, r = sum_c log softmax_c(m . p_c / tau) / (C ln C).

    m is a domain's mean feature; p_c the mean of class c over the source so far, of the teacher's
    features. tau 100, all weights 1, and 200 means of each class in the bank: released.

    Args:
        dim: channels D of the network's features.
        contrast: "proto", "dist" or "bank", as published.
        uniform: own: add -r, least where all similarities are equal; r is largest there.
    Source: Xie et al., TPAMI 2023, arXiv 2204.08808.
    """

    def __init__(self, dim: int, contrast: str, *, uniform: bool = False) -> None:
        super().__init__()
        self.dim, self.kind, self.uniform = dim, contrast, uniform
        self.bank = pc.PrototypeBank(
            NUM_CLASSES, dim, rule="cumulative", normalize="features", variance=contrast == "dist"
        )
        self.queue = pc.ClassQueue(NUM_CLASSES, 200, dim)

    def begin(self, start: Start) -> None:
        """Make the projector and its teacher."""
        super().begin(start)
        self.projector = Projector(self.dim, "cnrcnr", start.seed)
        self.taught = mean_teacher(self.projector)

    def more(self, step: Step, seen: Seen) -> dict[str, Tensor]:
        """Put the source's labelled features into the bank; contrast both domains with it."""
        self.taught.update_parameters(self.projector)
        with torch.no_grad():
            keys = self.taught(self.teacher(step.source.images).features)
        size = keys.shape[-2:]
        y = pc.labels_to_grid(step.image_labels, size, mode="majority", num_classes=NUM_CLASSES)
        means = self.bank.update(keys, y)
        self.queue.push(means.mean, classes_of(means))
        if step.progress < WARMUP:
            return {}
        target = step.network(strong(step.target_batch.images, step))
        found = self.terms("source", self.projector(seen.source.features), y)
        return found | self.terms("target", self.projector(target.features), seen.labels)

    def terms(self, domain: str, f: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Contrast unit features (B, D, h, w) with labels (B, h, w)."""
        p, s, seen = self.bank.prototypes, self.bank.variance, self.bank.present
        if s is not None:
            loss = pc.distribution_contrast(f, y, p, s, present=seen, temperature=TAU)
        elif self.kind == "bank":
            keys, classes, _ = self.queue.read()
            means = pc.class_prototypes(keys, classes, NUM_CLASSES)
            loss = pc.pair_contrast(
                pixel_rows(f), y.flatten(), keys, classes, negatives=means.mean,
                negative_labels=classes_of(means), similarity="dot", temperature=TAU,
            )  # fmt: skip
        else:
            loss = pc.pixel_prototype_contrast(
                f, y, p, present=seen, similarity="dot", temperature=TAU,
            )  # fmt: skip
        r = pc.spread(f, y, p, present=seen, temperature=TAU, toward="released")
        return {f"{domain}_contrast": loss, f"{domain}_spread": -r if self.uniform else r}
