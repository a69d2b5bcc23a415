"""What a method of adaptation is to the loop: `Method`, and the `Step` that it sees.

The parts of all ranks are one batch: two ranks train as one does on their union.
DistributedDataParallel averages the gradients of the ranks, and the loop those of the parts. A mean
over images or cells of one size needs nothing else; a mean over labelled pixels does, because parts
have different numbers of them.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import protocontrast as pc
from reference.data.batches import Batch
from reference.data.classes import IGNORE
from reference.networks.output import Domain, Output, Segmenter
from reference.run.ranks import Ranks
from reference.settings import AdaptationStage

Autocast = Callable[[], AbstractContextManager[Any]]

# Beside the streams of random numbers that choose and cut source and target images.
_METHOD: Final = 2
# A slot that no image of a batch has.
_WHOLE_STEP: Final = 2**16


@dataclass(frozen=True)
class Given:
    """What a method is built from, at the first step of adaptation and again when a run resumes."""

    network: Segmenter  # as the warm-up left it
    stage: AdaptationStage
    seed: int
    # Source pixels of every class, (C,), float64; counted at the first call.
    class_counts: Callable[[], Tensor]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return self.network.num_classes

    @property
    def dim(self) -> int:
        """Channels D of the network's features."""
        return self.network.feature_dim


@dataclass(frozen=True)
class Start:
    """What there is before the first step; the network is in evaluation mode."""

    network: Segmenter
    # Each makes a pass over this rank's share of whole images, those of the source with labels.
    source: Callable[[], Iterator[Batch]]
    target: Callable[[], Iterator[Batch]]
    autocast: Autocast
    ranks: Ranks

    def see(self, images: Tensor, domain: Domain = "target") -> Output:
        """What the network says about images (B, 3, H, W), in float32."""
        return see(self.network, images, self.autocast, domain)


@dataclass(frozen=True)
class Step:
    """One part of one step of training; the parts of all ranks are the batch."""

    network: Segmenter
    source: Batch
    # Its labels are the static ones of the round, None without; its partners the same places by
    # day. None for a method that does not look at the target.
    target: Batch | None
    # Number of the step, from 0 at the start of the adaptation, and steps of all of it.
    index: int
    steps: int
    round_index: int
    part: int  # number of this part on this rank
    seed: int
    ranks: Ranks
    autocast: Autocast
    # Labelled source pixels and statically labelled target pixels, each weighted by its class, as
    # a mean over the parts of all ranks: what `source_loss` and `static_loss` divide by.
    counts: tuple[Tensor, Tensor]
    # (C,), of cross-entropies on source labels and on static ones; None weighs all alike.
    class_weights: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def progress(self) -> float:
        """Share of the adaptation that is over, in [0, 1)."""
        return self.index / self.steps

    @property
    def source_labels(self) -> Tensor:
        """Source labels at the images' size, (B, H, W), 255 where none."""
        if self.source.labels is None:
            raise ValueError("Step: expected source labels, got None.")
        return self.source.labels

    @property
    def target_batch(self) -> Batch:
        """The target part, of a method that looks at the target."""
        if self.target is None:
            raise ValueError("Step: expected a target batch, got None. Hint: set uses_target.")
        return self.target

    def see(self, images: Tensor, domain: Domain = "target", by: nn.Module | None = None) -> Output:
        """What the network, or another such as a teacher, says about images, in float32.

        `domain`: whose stem reads them, where a network has one for each.
        """
        return see(by or self.network, images, self.autocast, domain)

    def source_loss(self, logits: Tensor, class_weight: Tensor | None = None) -> Tensor:
        """Cross-entropy on the source's labels, a mean over those of all parts and ranks.

        With a `class_weight` in place of the run's, a weighted mean over this part.
        """
        if class_weight is not None:
            return self.cross_entropy(logits, self.source_labels, class_weight=class_weight)
        return self._shared_mean(logits, self.source_labels, 0)

    def static_loss(self, logits: Tensor) -> Tensor:
        """Cross-entropy on the static labels, a mean over those of all parts and ranks."""
        labels = self.target_batch.labels
        if labels is None:
            raise ValueError("Step: expected static labels, got None.")
        return self._shared_mean(logits, labels, 1)

    def _shared_mean(self, logits: Tensor, labels: Tensor, which: int) -> Tensor:
        # Each part divides its own sum by the mean count of all; the loop averages over parts and
        # ranks, which leaves the mean over the whole batch.
        total = self._entropies(logits, labels, self.class_weights[which], "sum")
        return total / self.counts[which].to(total.dtype)

    def cross_entropy(
        self, logits: Tensor, labels: Tensor, *,
        class_weight: Tensor | None = None, pixel_weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Cross-entropy of logits (B, C, h, w), upsampled, on labels (B, H, W) of this part.

        `class_weight` (C,) is of the pixels and of the mean; with a `pixel_weight` (B, H, W) the
        mean runs over all pixels, labelled or not.
        """
        if pixel_weight is None:
            return self._entropies(logits, labels, class_weight, "mean")
        return (pixel_weight * self._entropies(logits, labels, class_weight, "none")).mean()

    def _entropies(
        self, logits: Tensor, labels: Tensor, class_weight: Tensor | None, reduction: Any
    ) -> Tensor:
        # At the size of the labels, whose upsampled logits would be the largest tensor of the step.
        return pc.upsampled_cross_entropy(
            logits, labels, class_weight=class_weight, ignore_index=IGNORE,
            align_corners=self.network.align_corners, reduction=reduction,
        )  # fmt: skip

    def upsampled(self, logits: Tensor, beside: Tensor) -> Tensor:
        """Logits (B, C, h, w) at the size of images or labels (..., H, W)."""
        return self.network.upsampled(logits, beside.shape[-2:])

    def on_grid(self, labels: Tensor, beside: Tensor) -> Tensor:
        """Labels (B, H, W), the nearest pixel's, on the grid of maps (B, D, h, w): (B, h, w)."""
        return pc.labels_to_grid(labels, (beside.shape[-2], beside.shape[-1]))

    def numpy_random(self, slot: int) -> np.random.Generator:
        """Random numbers of this step and of image `slot` of the batch, whatever ran before."""
        place = self.part * self.ranks.world + self.ranks.rank
        return np.random.default_rng([self.seed, _METHOD, self.index, place, slot])

    def random(self) -> torch.Generator:
        """Random numbers of this part, on the CPU, whatever ran before."""
        drawn = int(self.numpy_random(_WHOLE_STEP).integers(2**62))
        return torch.Generator().manual_seed(drawn)


def see(
    network: nn.Module, images: Tensor, autocast: Autocast, domain: Domain = "target"
) -> Output:
    """What a network says about images (B, 3, H, W), in float32 whatever its precision."""
    with autocast():
        output = network(images, domain=domain)
    return Output(output.logits.float(), output.features.float())


@dataclass(frozen=True)
class Losses:
    """What a method says about one part."""

    # Name -> weighted scalar; their sum is minimised, averaged over parts and ranks.
    terms: Mapping[str, Tensor]
    # The network's output on the target, for the alarms; None where it saw none.
    target: Output | None = None
    # Pseudo labels of the target that were used, (B, h, w) on any grid, 255 where none; their
    # coverage is reported. None without.
    labels: Tensor | None = None


class Method(nn.Module):
    """A method of adaptation: what every step minimises.

    The loop owns data, network and optimiser; a method owns its prototypes, its teacher and its
    heads, whose parameters are trained with the network's. Its state dict must hold everything
    that the next step depends on, so that a resumed run gives the same bits; an optimiser of its
    own is part of that (`nn.Module.get_extra_state`).
    """

    uses_target = True
    """Whether a target image is ever looked at."""
    uses_static = False
    """Whether it reads static pseudo labels, made anew at the start of every round."""
    uses_partners = False
    """Whether it reads images of the target's places by day."""

    mixes_images = False
    """Whether it pastes parts of images into those of the other domain, cut to the same size."""

    def begin(self, start: Start) -> None:
        """Prepare what is needed before the first step; not called when a run resumes."""

    def forward(self, step: Step) -> Losses:
        """Compute the terms of one part."""
        raise NotImplementedError

    def after(self, network: Segmenter, ranks: Ranks) -> None:
        """Look at the network after its weights have moved, once a step."""

    def at_test(self, network: Segmenter) -> Segmenter:
        """The network as it is used and scored; most methods leave it as it is."""
        return network

    def prototypes(self) -> Mapping[str, Tensor]:
        """Tables of prototypes to keep with the panels, by name; none by default."""
        return {}

    def trained(self) -> Sequence[nn.Parameter]:
        """Parameters that the loop's optimiser moves beside the network's."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


class Supervised(Method):
    """Cross-entropy on given labels: the warm-up and the oracle."""

    uses_target = False

    def forward(self, step: Step) -> Losses:
        """CE(P, y), read with the target's stem, which is the one that is scored."""
        output = step.see(step.source.images, "target")
        return Losses({"source_cross_entropy": step.source_loss(output.logits)})


class Part(NamedTuple):
    """What is read at once: labelled images, and unlabelled ones where a method looks at them."""

    source: Batch
    target: Batch | None


class _Whole(nn.Module):
    """Network and method as one module, whose one call a step DistributedDataParallel watches."""

    def __init__(self, network: Segmenter, method: Method) -> None:
        super().__init__()
        self.network, self.method = network, method
        # DistributedDataParallel complains where it looks for unused parameters and finds none.
        self.unused = nn.Parameter(next(network.parameters()).new_zeros(()))

    def forward(self, step: Step) -> Any:
        return self.method(step)


def shared_by(ranks: Ranks, network: Segmenter, method: Method) -> nn.Module:
    """Return what computes the losses of a step, with gradients averaged over the ranks."""
    whole = _Whole(network, method)
    if not ranks.shared:
        return whole
    known = inspect.signature(DistributedDataParallel).parameters
    # Its name from torch 2.13 on, and before.
    named = [name for name in ("forward_sync_buffers", "broadcast_buffers") if name in known]
    more: dict[str, Any] = {named[0]: False}
    # Which parameters a step reads depends on the method, and in some on the step.
    return DistributedDataParallel(whole, find_unused_parameters=True, **more)


def label_counts(
    parts: Sequence[Part], class_weights: tuple[Tensor | None, Tensor | None], ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Labelled pixels, weighted by class, as a mean over the parts of all ranks: source, static."""

    def weight(labels: Tensor | None, class_weight: Tensor | None) -> Tensor:
        if labels is None:
            return torch.zeros((), dtype=torch.float64, device=ranks.device)
        valid = labels != IGNORE
        if class_weight is None:
            return valid.sum().double()
        return (class_weight.double()[torch.where(valid, labels, 0)] * valid).sum()

    source = torch.stack([weight(part.source.labels, class_weights[0]) for part in parts])
    given = [part.target and part.target.labels for part in parts]
    static = torch.stack([weight(labels, class_weights[1]) for labels in given])
    own = torch.stack([source, static]).sum(dim=1)
    total = ranks.total(own) / (ranks.world * len(parts))
    # Without a label anywhere the sum above it is 0, whatever it is divided by.
    of_source, of_static = torch.where(total > 0, total, 1.0)
    return of_source, of_static
