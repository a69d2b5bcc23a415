"""DACS (Tranheden et al., WACV 2021): a mean teacher's labels, and images mixed by class."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

import protocontrast as pc
from reference.bicl import contrast
from reference.contrast_shares import contrast_shares
from reference.data.classes import IGNORE
from reference.data.colour import change_colours
from reference.data.settings import Colours
from reference.method import Given, Losses, Method, Step
from reference.methods.teachers import CONFIDENT, MeanTeacher
from reference.networks.output import Output, Segmenter
from reference.run.ranks import Ranks

STRONG: Final = Colours(
    probability=1.0, brightness=0.08, contrast=0.35, saturation=0.5, hue=0.0, gamma=0.5,
    channels=0.08, noise=0.04, blur_probability=0.4, blur_sigma=(0.2, 1.2),
)  # fmt: skip
"""The strong change of an image's look; own."""


@dataclass(frozen=True)
class Mixture:
    """What a step of DACS has computed, at the size of the images but for three outputs."""

    source: Output  # of the network, on source images
    mixed: Output  # of the network, on mixed images
    taught: Output  # of the teacher, on target images, without gradient
    sure: Tensor  # its probabilities (B, C, H, W)
    labels: Tensor  # the classes that it predicts (B, H, W)
    mixed_images: Tensor  # after the strong change of their look
    mixed_labels: Tensor
    from_source: Tensor  # bool (B, H, W), which pixels of the mixed images come from the source
    share: Tensor  # (), of the target's pixels of which the teacher is confident, 0..1


class DACS(Method):
    """L = CE(P_s, y_s) + mean_i w_i CE(P_mix, y_mix), w_i = 1 on source pixels, q on the target's.

    q is the share of target pixels whose probability is at least 0.968. Half of an image's classes
    are pasted, for which its unlabelled pixels are a class, too; the mean is over all pixels.
    """

    mixes_images = True

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.num_classes = given.num_classes
        self.teacher = MeanTeacher(given.network)

    def after(self, network: Segmenter, ranks: Ranks) -> None:
        self.teacher.update_parameters(network)

    def more(self, step: Step, seen: Mixture) -> dict[str, Tensor]:
        """Terms that SePiCo, CONFETI, PiPa and BiCL on DACS add, by name."""
        return {}

    def forward(self, step: Step) -> Losses:
        seen = self.mixture(step)
        weight = torch.where(seen.from_source, 1.0, seen.share)
        terms = {
            "source_cross_entropy": step.source_loss(seen.source.logits),
            "mixed_cross_entropy": step.cross_entropy(
                seen.mixed.logits, seen.mixed_labels, pixel_weight=weight
            ),
        }
        return Losses(terms | self.more(step, seen), seen.taught, seen.labels)

    def mixture(self, step: Step) -> Mixture:
        """Ask the teacher, mix, and ask the network."""
        images = step.target_batch.images
        with torch.no_grad():
            taught = step.see(images, by=self.teacher)
            sure = step.upsampled(taught.logits, images).softmax(dim=1)
        labels = sure.argmax(dim=1)
        mix = half_mix(step, images, labels)
        mixed = strong(mix.images, step)
        return Mixture(
            step.see(step.source.images, "source"), step.see(mixed), taught, sure, labels, mixed,
            mix.labels, mix.mask, pc.confident_share(sure, CONFIDENT),
        )  # fmt: skip


def half_mix(step: Step, images: Tensor, labels: Tensor) -> pc.ClassMix:
    """Paste half of every source image's classes onto images (B, 3, H, W) of labels (B, H, W).

    Its unlabelled pixels are drawn as if they were one class more, as released.
    """
    known, one_more = step.source_labels, step.network.num_classes
    mix = pc.class_mix(
        step.source.images, known.masked_fill(known == IGNORE, one_more), images, labels,
        num_classes=one_more + 1, generator=step.random(),
    )  # fmt: skip
    return mix._replace(labels=mix.labels.masked_fill(mix.labels == one_more, IGNORE))


def strong(images: Tensor, step: Step) -> Tensor:
    """Change the look of every image of a batch (B, 3, H, W)."""
    pairs = ((image, step.numpy_random(slot)) for slot, image in enumerate(images))
    return torch.stack([change_colours(image, STRONG, random) for image, random in pairs])


class BiCLOnDACS(DACS):
    """DACS + l_1 L(t -> rho_S) + l_2 L(s -> rho_T), with the contrast of the run's settings.

    A target pixel has the teacher's label where that is sure, and else that of the nearest
    calibrated prototype, if it is near enough. An own combination.
    """

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.contrast = contrast(given.stage.contrast, given.num_classes, given.dim)

    def more(self, step: Step, seen: Mixture) -> dict[str, Tensor]:
        """Contrast source and target pixels with prototypes of the other domain."""
        target = step.see(step.target_batch.images)
        sure = pc.select_labels(seen.sure, CONFIDENT).labels
        pulled = self.contrast(seen.source.features, step.source_labels, target.features, sure)
        to_source, to_target = contrast_shares(self.contrast, pulled, step, sure)
        l_1, l_2 = self.contrast.weights
        return {
            "target_to_source": l_1 * to_source * pulled.target_to_source,
            "source_to_target": l_2 * to_target * pulled.source_to_target,
        }
