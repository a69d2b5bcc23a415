"""SePiCo (Xie et al., TPAMI 2023): pixels against the source's means, distributions or a bank."""

from typing import Final, Literal

import torch
from torch import Tensor

import protocontrast as pc
from reference.method import Given, Step
from reference.methods.dacs import DACS, Mixture, strong
from reference.methods.heads import Projector, classes_of, pixel_rows
from reference.methods.teachers import MeanTeacher

TAU: Final = 100.0
WARMUP: Final = 3000 / 40000  # Share of the run before the contrast starts; published.
Kind = Literal["proto", "dist", "bank"]


class SePiCo(DACS):
    """DACS + contrast + r, of either domain, r = sum_c log softmax_c(m . p_c / tau) / (C ln C).

    m is a domain's mean feature; p_c the mean of class c over the source so far, of the teacher's
    features. tau 100, all weights 1, and 200 means of each class in the bank: released.

    Args:
        contrast: as published.
        uniform: own: add -r, least where all similarities are equal; r is largest there.

    Source: Xie et al., TPAMI 2023, arXiv 2204.08808.
    """

    def __init__(self, given: Given, contrast: Kind, *, uniform: bool = False) -> None:
        super().__init__(given)
        self.kind, self.uniform = contrast, uniform
        self.bank = pc.PrototypeBank(
            given.num_classes, given.dim, rule="cumulative", normalize="features",
            variance=contrast == "dist",
        )  # fmt: skip
        self.queue = pc.ClassQueue(given.num_classes, 200, given.dim)
        self.projector = Projector(given.dim, "cnrcnr", given.seed)
        self.taught = MeanTeacher(self.projector)

    def more(self, step: Step, seen: Mixture) -> dict[str, Tensor]:
        """Put the source's labelled features into the bank; contrast both domains with it."""
        if step.part == 0:
            self.taught.update_parameters(self.projector)
        with torch.no_grad():
            keys = self.taught(step.see(step.source.images, "source", self.teacher).features)
        y = self.majority(step.source_labels, keys)
        means = self.bank.update(keys, y)
        self.queue.push(means.mean, classes_of(means))
        if step.progress < WARMUP:
            return {}
        target = self.projector(step.see(strong(step.target_batch.images, step)).features)
        terms = self.terms("source", self.projector(seen.source.features), y)
        return terms | self.terms("target", target, self.majority(seen.labels, target))

    def majority(self, labels: Tensor, beside: Tensor) -> Tensor:
        """Labels (B, H, W) of three quarters of a cell, on the grid of maps."""
        size = (beside.shape[-2], beside.shape[-1])
        return pc.labels_to_grid(labels, size, mode="majority", num_classes=self.num_classes)

    def terms(self, domain: str, f: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Contrast unit features (B, D, h, w) with labels (B, h, w)."""
        p, s, seen = self.bank.prototypes, self.bank.variance, self.bank.present
        if s is not None:
            loss = pc.distribution_contrast(f, y, p, s, present=seen, temperature=TAU)
        elif self.kind == "bank":
            keys, classes, _ = self.queue.read()
            means = pc.class_prototypes(keys, classes, self.num_classes)
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
