"""ProCA (Jiang et al., ECCV 2022): contrast at two levels against prototypes of both domains."""

from typing import Final

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Losses, Method, Start, Step
from reference.methods.teachers import grid_labels
from reference.networks.output import Output

TEMPERATURE: Final = 50.0
LEAST_LOGIT: Final = 0.9
"""Of a target pixel that is labelled: of the logit itself, not of a probability; released."""


class ProCA(Method):
    """CE(P_s, y_s) + 0.75 Lovasz(P_s, y_s) + sum over both levels of L(s -> p) + L(t -> p), cosine.

    A prototype is the mean over all pixels of its class seen so far, of source and target, each of
    the same weight: p <- (n p + sum of the batch) / (n + pixels of the batch). A pass over the
    source starts it. It moves by the target, then by the source, then the loss is taken. That of a
    class that nothing has shown is 0 and stays in the sum, with a cosine of 0.

    Source: Jiang et al., ProCA, ECCV 2022, arXiv 2207.06654.
    """

    def __init__(self, given: Given) -> None:
        super().__init__()
        classes = given.num_classes
        self.features = pc.PrototypeBank(classes, given.dim, rule="cumulative")
        self.logits = pc.PrototypeBank(classes, classes, rule="cumulative")

    @torch.no_grad()
    def begin(self, start: Start) -> None:
        for batch in start.source():
            seen = start.see(batch.images, "source")
            labels = grid_labels(batch, seen.logits)
            for bank, maps in ((self.features, seen.features), (self.logits, seen.logits)):
                bank.accumulate(pc.class_prototypes(maps, labels, bank.num_classes))
        self.features.commit()
        self.logits.commit()

    def forward(self, step: Step) -> Losses:
        seen, new = step.see(step.source.images, "source"), step.see(step.target_batch.images)
        known, sure = step.on_grid(step.source_labels, seen.logits), sure_labels(new.logits)
        self.update(new, sure)
        self.update(seen, known)
        terms = {
            "source_cross_entropy": step.source_loss(seen.logits),
            "source_lovasz": 0.75 * lovasz_softmax(seen.logits, known),
            **self.contrast("source", seen, known),
            **self.contrast("target", new, sure),
        }
        return Losses(terms, new, sure)

    def update(self, seen: Output, labels: Tensor) -> None:
        self.features.update(seen.features.detach(), labels)
        self.logits.update(seen.logits.detach(), labels)

    def contrast(self, domain: str, seen: Output, labels: Tensor) -> dict[str, Tensor]:
        banks = {"logits": self.logits, "features": self.features}
        return {
            f"{domain}_{level}": pc.pixel_prototype_contrast(
                pixels, labels, bank.prototypes,
                present=torch.ones_like(bank.present), temperature=TEMPERATURE,
            )
            for (level, bank), pixels in zip(banks.items(), seen, strict=True)
        }  # fmt: skip


def sure_labels(logits: Tensor) -> Tensor:
    """The predicted class (B, h, w) where its logit is at least 0.9, else 255."""
    most = logits.detach().max(dim=1)
    return torch.where(most.values >= LEAST_LOGIT, most.indices, IGNORE)


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the classes that labels show of sum_k m_k (J_k - J_{k-1}).

    m_1 >= m_2 >= ... are the errors |[y_i = c] - p_ic| of all labelled pixels, and J_k is one minus
    the IoU of class c if the k pixels of the largest errors are wrong and the others right.

    In [0, 1]; 0 with zero gradient without a label. Logits (B, C, h, w), labels (B, h, w).

    Source: Berman et al., CVPR 2018, arXiv 1705.08790.

    Example:
        >>> sure = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1)
        >>> [lovasz_softmax(sure, torch.full((1, 1, 1), label)).item() for label in (0, 1, 255)]
        [0.0, 1.0, 0.0]
    """
    valid = labels != IGNORE
    shares, known = logits.softmax(dim=1).movedim(1, -1)[valid], labels[valid]
    losses = [logits.sum() * 0]
    for label in known.unique():
        own = (known == label).long()
        errors, order = (own - shares[:, label]).abs().sort(descending=True)
        # Pixels of the class that are still right, and those that the class then covers.
        right = own.sum() - own[order].cumsum(dim=0)
        covered = own.sum() + (1 - own[order]).cumsum(dim=0)
        wrong = 1 - right.to(errors.dtype) / covered
        losses.append((errors * wrong.diff(prepend=wrong.new_zeros(1))).sum())
    return torch.stack(losses).sum() / max(len(losses) - 1, 1)
