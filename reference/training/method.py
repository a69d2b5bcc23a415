"""What a method of adaptation is to the training loop: `Method`, and the `Step` that it sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.data.transforms import Batch
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork
from reference.training.losses import cell_labels, source_cross_entropy

# Beside the streams of random numbers that draw source and target batches.
_METHOD = 2
# A slot that no image of a batch has.
_WHOLE_STEP = 2**16


@dataclass(frozen=True)
class Start:
    """What there is before the first step.

    Args:
        network: the network that will be trained, as the source stage left it.
        source: the whole source, with labels.
        target_images: all unlabelled target images, uint8 (N, 3, H, W).
        seed: of the run.
        day_images: row i shows the place of target image i by day, uint8 (N, 3, H, W), without
            labels; None where the target has no such images.
    """

    network: SegmentationNetwork
    source: ArrayDomain
    target_images: Tensor
    seed: int
    day_images: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """What one step of training shows to a method.

    Args:
        network: the network being trained.
        source: images and labels.
        target: images without labels; None for a method that never looks at the target.
        index: number of the step, from 0.
        steps: of the whole run.
        round_index: the round, from 0, that the step belongs to.
        starts_round: whether it is the first of its round.
        seed: of the run.
        full_resolution: take source cross-entropy on upsampled logits.
        target_images: the images that `target.indices` counts, uint8 (N, 3, H, W).
    """

    network: SegmentationNetwork
    source: Batch
    target: Batch | None
    index: int
    steps: int
    round_index: int
    starts_round: bool
    seed: int
    full_resolution: bool
    target_images: Tensor

    @property
    def progress(self) -> float:
        """Share of the run that is over, in [0, 1)."""
        return self.index / self.steps

    @property
    def image_labels(self) -> Tensor:
        """Source labels at the images' size, (B, H, W), 255 where none."""
        if self.source.labels is None:
            raise ValueError(
                "Step: expected source labels, got None. Hint: read them with labels=True."
            )
        return self.source.labels

    @property
    def source_labels(self) -> Tensor:
        """Source labels on the grid of the features, (B, h, w), 255 where none."""
        return cell_labels(self.source.labels)

    @property
    def target_batch(self) -> Batch:
        """The target batch, of a method that looks at the target."""
        if self.target is None:
            raise ValueError("Step: expected a target batch, got None. Hint: set uses_target.")
        return self.target

    def source_loss(self, logits: Tensor, class_weight: Tensor | None = None) -> Tensor:
        """Source cross-entropy of logits (B, C, h, w), classes weighted by (C,)."""
        return source_cross_entropy(
            logits,
            self.source.labels,
            full_resolution=self.full_resolution,
            class_weight=class_weight,
        )

    def numpy_random(self, slot: int) -> np.random.Generator:
        """Random numbers of this step and image, whatever ran before."""
        return np.random.default_rng([self.seed, _METHOD, self.index, slot])

    def random(self) -> torch.Generator:
        """Random numbers of this step, whatever ran before."""
        drawn = int(self.numpy_random(_WHOLE_STEP).integers(2**62))
        return torch.Generator().manual_seed(drawn)


@dataclass(frozen=True)
class Stepped:
    """One step: its terms, and what they were made from.

    Args:
        losses: term -> weighted scalar; their sum is minimised.
        target: the network's output on the target images; None where it saw none.
        contrast: what BiCL returned; None without it.
        labels: pseudo labels of the target on the grid, (B, h, w), 255 where none; None without.
        static_labels: those of them that stay as they are for a round; None without.
    """

    losses: dict[str, Tensor]
    target: Output | None = None
    contrast: pc.BiCLOutput | None = None
    labels: Tensor | None = None
    static_labels: Tensor | None = None


class Method(nn.Module):
    """A method of adaptation: what every step minimises.

    The loop owns data, network and optimiser; a method owns its prototypes, its teacher and its
    heads, whose parameters are trained with the network's.
    """

    uses_target = True
    """Whether a target image is ever looked at."""

    def begin(self, start: Start) -> None:
        """Prepare what is needed before the first step."""

    def forward(self, step: Step) -> Stepped:
        """Compute the terms of one step."""
        raise NotImplementedError

    def after(self, network: SegmentationNetwork) -> None:
        """Look at the network after its weights have moved."""

    def end(self, network: SegmentationNetwork) -> None:
        """Give the trained network what it needs at test time beside its weights."""

    def trained(self) -> Iterator[nn.Parameter]:
        """Parameters that the loop's optimiser moves beside the network's."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)
