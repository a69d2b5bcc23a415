"""ProDA (Zhang et al., CVPR 2021): saved predictions that present prototypes rectify."""

from __future__ import annotations

import torch
from torch import Tensor

import protocontrast as pc
from reference.data.classes import NUM_CLASSES
from reference.data.transforms import matching
from reference.methods.dacs import strong
from reference.methods.mean_teacher import mean_teacher
from reference.methods.passes import whole_output
from reference.methods.settings import TEACHER
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork
from reference.training.method import Method, Start, Step, Stepped


class ProDA(Method):
    """L = CE(P_s, y_s) + 0.1 CE(P_t, y) + RCE(P_t, y) + 0.1 MRKLD(P_t) + 10/C KL(W || W_strong).

    y = argmax_c P0_c W_c, of the probabilities P0 that the network had before the first step, with
    W = softmax_c(-|f - p_c|) of the teacher's features; W_strong is that of the network's on a
    strongly changed image. Prototypes are means of the teacher's features by its own prediction,
    in which each image that shows a class counts once. The released KL is a mean over classes, too.
    Teacher and prototypes keep 0.99 per step; released 0.999 and 0.9999, of a longer schedule.

    Args:
        feature_dim: channels D of the features.

    Source: Zhang et al., ProDA, CVPR 2021, arXiv 2101.10979; its first stage.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.bank = pc.PrototypeBank(NUM_CLASSES, feature_dim, momentum=TEACHER)

    def begin(self, start: Start) -> None:
        """Copy the teacher, save its probabilities, and take prototypes from the target."""
        self.teacher = mean_teacher(start.network, ramp=False)
        seen = whole_output(start.network, start.target_images)
        self.saved = seen.logits.softmax(dim=1)
        self.bank.update_from(image_means(seen))

    def forward(self, step: Step) -> Stepped:
        """Compute the terms of one step."""
        seen, images = step.network(step.source.images), step.target_batch.images
        new, changed = step.network(images), step.network(strong(images, step))
        with torch.no_grad():
            taught = self.teacher(images)
        near, near_strong = self.nearness(taught.features), self.nearness(changed.features)
        saved = matching(self.saved, step.target_batch)
        labels = pc.select_labels(pc.rectify(saved, near.softmax(dim=1)), 0.0).labels
        losses = {
            "source_cross_entropy": step.source_loss(seen.logits),
            "symmetric_cross_entropy": pc.symmetric_cross_entropy(new.logits, labels),
            "confidence": 0.1 * pc.mrkld(new.logits),
            "consistency": 10 / NUM_CLASSES * pc.similarity_kl(near_strong, near),
        }
        self.means = image_means(taught)
        return Stepped(losses, new, labels=labels)

    def after(self, network: SegmentationNetwork) -> None:
        """Move teacher and prototypes, which the gradient has read by now."""
        self.teacher.update_parameters(network)
        self.bank.update_from(self.means)

    def nearness(self, features: Tensor) -> Tensor:
        """Minus the distance to every prototype, (B, C, h, w)."""
        rows, present = self.bank.prototypes, self.bank.present
        return pc.prototype_logits(
            features, rows, present=present, similarity="euclidean", temperature=1.0
        )


def image_means(seen: Output) -> pc.ClassPrototypes:
    """Means of features by predicted class, of each image, (B, C, D)."""
    labels = seen.logits.argmax(dim=1)
    return pc.class_prototypes(seen.features, labels, NUM_CLASSES, per_image=True)
