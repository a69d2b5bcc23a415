"""ProDA (Zhang et al., CVPR 2021): first predictions that present prototypes rectify."""

import torch
from torch import Tensor

import protocontrast as pc
from reference.method import Given, Losses, Method, Start, Step
from reference.methods.dacs import strong
from reference.methods.teachers import MOMENTUM, MeanTeacher, image_means
from reference.networks.output import Segmenter
from reference.run.ranks import Ranks


class ProDA(Method):
    """L = CE(P_s, y_s) + 0.1 CE(P_t, y) + RCE(P_t, y) + 0.1 MRKLD(P_t) + 10/C KL(W || W_strong).

    y = argmax_c P0_c W_c, of the probabilities P0 of the network before the first step, with
    W = softmax_c(-|f - p_c|) of the teacher's features; W_strong is that of the network's on a
    strongly changed image. Prototypes are means of the teacher's features by its own prediction,
    in which each image that shows a class counts once. The released KL is a mean over classes, too.
    Teacher and prototypes keep 0.99 per step; released 0.999 and 0.9999, of a longer schedule.

    Source: Zhang et al., ProDA, CVPR 2021, arXiv 2101.10979; its first stage.
    """

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.bank = pc.PrototypeBank(given.num_classes, given.dim, momentum=MOMENTUM)
        self.first = MeanTeacher(given.network)
        self.teacher = MeanTeacher(given.network, ramp=False)

    @torch.no_grad()
    def begin(self, start: Start) -> None:
        for batch in start.target():
            self.bank.accumulate(image_means(start.see(batch.images)))
        self.bank.commit()

    def forward(self, step: Step) -> Losses:
        seen, images = step.see(step.source.images, "source"), step.target_batch.images
        new, changed = step.see(images), step.see(strong(images, step))
        with torch.no_grad():
            taught = step.see(images, by=self.teacher)
            first = step.see(images, by=self.first).logits.softmax(dim=1)
        near, near_strong = self.nearness(taught.features), self.nearness(changed.features)
        labels = pc.select_labels(pc.rectify(first, near.softmax(dim=1)), 0.0).labels
        terms = {
            "source_cross_entropy": step.source_loss(seen.logits),
            "symmetric_cross_entropy": pc.symmetric_cross_entropy(new.logits, labels),
            "confidence": 0.1 * pc.mrkld(new.logits),
            "consistency": 10 / self.bank.num_classes * pc.similarity_kl(near_strong, near),
        }
        self.bank.accumulate(image_means(taught))
        return Losses(terms, new, labels)

    def after(self, network: Segmenter, ranks: Ranks) -> None:
        """Move teacher and prototypes, which the gradient has read by now."""
        self.teacher.update_parameters(network)
        self.bank.commit()

    def nearness(self, features: Tensor) -> Tensor:
        """Minus the distance to every prototype, (B, C, h, w)."""
        rows, present = self.bank.prototypes, self.bank.present
        return pc.prototype_logits(
            features, rows, present=present, similarity="euclidean", temperature=1.0
        )
