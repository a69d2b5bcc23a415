"""DACS (Tranheden et al., WACV 2021): a mean teacher's labels, and images mixed by class.

Also what SePiCo, CONFETI, BLDA and PiPa stand on: they add terms of their own by `more`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.data.transforms import Augmentation, augment
from reference.methods.mean_teacher import mean_teacher
from reference.methods.settings import CONFIDENT
from reference.networks.output import Output
from reference.networks.toy import STRIDE, SegmentationNetwork
from reference.training.losses import cell_labels
from reference.training.method import Method, Start, Step, Stepped


@dataclass(frozen=True)
class Seen:
    """What a step of DACS has computed.

    Args:
        source, mixed: the network's output on source and mixed images.
        taught: the teacher's output on target images, without gradient.
        labels: the teacher's labels of target images on the grid, (B, h, w).
        mixed_images, mixed_labels: float (B, 3, H, W), after the strong change of their look, and
            train ids (B, H, W).
        from_source: bool (B, H, W), which pixels of the mixed images come from the source.
        share: (), of the target's pixels of which the teacher is confident, 0..1.
    """

    source: Output
    mixed: Output
    taught: Output
    labels: Tensor
    mixed_images: Tensor
    mixed_labels: Tensor
    from_source: Tensor
    share: Tensor


class DACS(Method):
    """L = CE(P_s, y_s) + mean_i w_i CE(P_mix, y_mix), w_i = 1 on source pixels, q on the target's.

    q is the share of target pixels whose probability is at least 0.968. Half of an image's classes
    are pasted, for which its unlabelled pixels are a class, too; the mean is over all pixels.
    """

    def begin(self, start: Start) -> None:
        """Copy the teacher."""
        self.teacher = mean_teacher(start.network)

    def after(self, network: SegmentationNetwork) -> None:
        """Move the teacher."""
        self.teacher.update_parameters(network)

    def more(self, step: Step, seen: Seen) -> dict[str, Tensor]:
        """Terms that a method adds, by name."""
        return {}

    def forward(self, step: Step) -> Stepped:
        """Compute the terms of one step."""
        seen = self.seen(step)
        weight = torch.where(seen.from_source, 1.0, seen.share)
        losses = {
            "source_cross_entropy": step.source_loss(seen.source.logits),
            "mixed_cross_entropy": weighted_cross_entropy(
                seen.mixed.logits, cell_labels(seen.mixed_labels), cells(weight)
            ),
        }
        return Stepped(losses | self.more(step, seen), seen.taught, labels=seen.labels)

    def seen(self, step: Step) -> Seen:
        """Ask the teacher, mix, and ask the network."""
        images = step.target_batch.images
        with torch.no_grad():
            taught = self.teacher(images)
        sure = taught.logits.softmax(dim=1)
        labels = sure.argmax(dim=1)
        mix = half_mix(step, images, at_image_size(labels))
        mixed = strong(mix.images, step)
        return Seen(
            step.network(step.source.images), step.network(mixed), taught, labels, mixed,
            mix.labels, mix.mask, pc.confident_share(sure, CONFIDENT),
        )  # fmt: skip


def half_mix(step: Step, images: Tensor, labels: Tensor) -> pc.ClassMix:
    """Paste half of every source image's classes onto images (B, 3, H, W) of labels (B, H, W).

    Its unlabelled pixels are drawn as if they were one class more, as released.
    """
    known = step.image_labels
    mix = pc.class_mix(
        step.source.images, known.masked_fill(known == IGNORE, NUM_CLASSES), images, labels,
        num_classes=NUM_CLASSES + 1, generator=step.random(),
    )  # fmt: skip
    return mix._replace(labels=mix.labels.masked_fill(mix.labels == NUM_CLASSES, IGNORE))


def at_image_size(labels: Tensor) -> Tensor:
    """Repeat labels of the grid (B, h, w) for every pixel of their cell: (B, H, W)."""
    return labels.repeat_interleave(STRIDE, dim=-2).repeat_interleave(STRIDE, dim=-1)


def cells(weight: Tensor) -> Tensor:
    """The weight at the middle of every cell, where `cell_labels` reads the label."""
    return weight[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


def strong(images: Tensor, step: Step) -> Tensor:
    """Change the look of every image of a batch (B, 3, H, W)."""
    pairs = ((image, step.numpy_random(slot)) for slot, image in enumerate(images))
    return torch.stack([augment(image, Augmentation(), random) for image, random in pairs])


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean over all pixels of weight times cross-entropy, which is 0 without a label; released."""
    each = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return (weight * each).mean()
