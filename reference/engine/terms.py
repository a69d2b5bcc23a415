"""The loss terms of one part of a batch, so weighted that parts and ranks add up to the whole.

    L = CE(P_s, y_s) + w_F CE(P_t, y_F) + w_H H(P_s) + w_E H(P_t)
        + l_1 L(t -> rho_S) + l_2 L(s -> rho_T)

A mean over pixels is taken over the pixels of all parts of all ranks: each part divides its own
sum by the common count. Averaging the gradients of the ranks, as DistributedDataParallel does, then
gives the gradient of one process on the union of their images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.data.loading import SourceBatch, TargetBatch
from reference.engine.optimisation import Precision
from reference.engine.processes import Processes
from reference.engine.settings import Machine
from reference.engine.stage_settings import AdaptationStage
from reference.networks.output import Domain, Output, Segmenter


class Part(NamedTuple):
    """What is read at once: source images, and target images in a round."""

    source: SourceBatch
    target: TargetBatch | None


def next_parts(
    sources: Iterator[SourceBatch],
    targets: Iterator[TargetBatch] | None,
    machine: Machine,
    device: torch.device,
) -> list[Part]:
    """Take the parts of one iteration to the device.

    Args:
        sources: labelled batches, one per part.
        targets: likewise; None in the warm-up.
        machine: number of parts and memory format of images.
        device: of the network.
    """
    memory = torch.channels_last if machine.channels_last else torch.contiguous_format

    def images(stored: Tensor) -> Tensor:
        return stored.to(device, non_blocking=True, memory_format=memory)

    parts = []
    for _ in range(machine.accumulate):
        read = next(sources)
        source = SourceBatch(images(read.images), read.labels.to(device), read.indices)
        target = None
        if targets is not None:
            new = next(targets)
            labels = None if new.static is None else new.static.to(device)
            target = TargetBatch(images(new.images), new.indices, labels)
        parts.append(Part(source, target))
    return parts


class BothDomains(nn.Module):
    """A network that reads one part in one call, as DistributedDataParallel wants it.

    Args:
        network: any.
        precision: of the network alone; what it gives is float32.

    Shape:
        source and target as the network's images. Result: an `Output` each, in float32; None for
        no target.
    """

    def __init__(self, network: Segmenter, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def _read(self, images: Tensor, domain: Domain) -> Output:
        with self.precision.autocast():
            output = self.network(images, domain=domain)
        return Output(output.logits.float(), output.features.float())

    def forward(self, source: Tensor, target: Tensor | None) -> tuple[Output, Output | None]:
        """Read both domains; the warm-up reads source images with the stem of the target."""
        domain: Domain = "target" if target is None else "source"
        seen = self._read(source, domain)
        return seen, None if target is None else self._read(target, "target")


@dataclass(frozen=True)
class Shares:
    """What the parts of a step have in common.

    Args:
        source: labelled source pixels of all parts and ranks, ().
        static: target pixels with a static label of all parts and ranks, ().
        parts: number of parts on a rank.
        processes: the ranks.
    """

    source: Tensor
    static: Tensor
    parts: int
    processes: Processes


def shares(parts: Sequence[Part], processes: Processes) -> Shares:
    """Count what the means of a step are taken over.

    Args:
        parts: of this rank, on its device.
        processes: the ranks.
    """
    source = torch.stack([(part.source.labels != IGNORE).sum() for part in parts]).sum()
    static = torch.zeros_like(source)
    for part in parts:
        if part.target is not None and part.target.static is not None:
            static = static + (part.target.static != IGNORE).sum()
    both = processes.total(torch.stack([source, static]).double()).clamp(min=1)
    return Shares(both[0], both[1], len(parts), processes)


def _pixel_cross_entropy(
    network: Segmenter, logits: Tensor, labels: Tensor, count: Tensor, world: int
) -> Tensor:
    # At the size of the labels, whose upsampled logits would be the largest tensor of the step.
    total = pc.upsampled_cross_entropy(
        logits, labels, ignore_index=IGNORE, align_corners=network.align_corners, reduction="sum"
    )
    return total * (world / count).to(total.dtype)


def _labelled(labels: Tensor, classes: Tensor) -> Tensor:
    valid = labels != IGNORE
    return (valid & classes[torch.where(valid, labels, 0)]).sum().double()


def _pulled(grid: Tensor, static: Tensor | None, classes: Tensor) -> Tensor:
    """Pixels of these classes that the target's contrast is a mean over.

    Given labels of a cell, or all of its pixels where it has none; a cell that is labelled by a
    pixel beyond its edge counts for that label.
    """
    if static is None or static.shape == grid.shape:
        return _labelled(grid, classes)
    size = (grid.shape[1], grid.shape[2])
    given = pc.labels_to_grid(static, size, mode="counts", num_classes=len(classes))
    every = torch.zeros_like(static[:1])
    pixels = pc.labels_to_grid(every, size, mode="counts", num_classes=1)[:, 0].clamp(min=1)
    valid = (grid != IGNORE) & (given.sum(dim=1) == 0)
    moved = valid & classes[torch.where(valid, grid, 0)]
    own = (given.double().sum(dim=(0, 2, 3)) * classes).sum()
    return own + (moved * pixels).double().sum()


@dataclass(frozen=True)
class PartLosses:
    """The terms of one part.

    Args:
        losses: term -> weighted scalar; their sum is minimised.
        target: the network's output on the target; None in the warm-up.
        contrast: what BiCL returned; None without contrast.
    """

    losses: dict[str, Tensor]
    target: Output | None = None
    contrast: pc.BiCLOutput | None = None


def part_losses(
    network: Segmenter,
    read: nn.Module,
    bicl: pc.BiCL | None,
    part: Part,
    stage: AdaptationStage,
    round_index: int | None,
    common: Shares,
) -> PartLosses:
    """Compute the terms of one part.

    Args:
        network: being trained; says how logits are upsampled.
        read: `BothDomains` of it, perhaps inside DistributedDataParallel.
        bicl: prototypes, bias and both contrasts, updated by this call; None without contrast.
        part: images and labels.
        stage: weights of the terms.
        round_index: from 0; None in the warm-up.
        common: counts of the whole step.
    """
    world = common.processes.world
    target = part.target
    seen, new = read(part.source.images, None if target is None else target.images)
    losses = {
        "source_cross_entropy": _pixel_cross_entropy(
            network, seen.logits, part.source.labels, common.source, world
        )
    }
    if target is None or new is None or round_index is None:
        return PartLosses(losses)
    if target.static is not None and stage.static_weight:
        losses["static_cross_entropy"] = stage.static_weight * _pixel_cross_entropy(
            network, new.logits, target.static, common.static, world
        )
    if round_index >= stage.entropy_from_round:
        if stage.source_entropy_weight:
            losses["source_entropy"] = (
                stage.source_entropy_weight * pc.entropy(seen.logits) / common.parts
            )
        if stage.entropy_weight:
            losses["entropy"] = stage.entropy_weight * pc.entropy(new.logits) / common.parts
    if bicl is None:
        return PartLosses(losses, new)
    pulled = bicl(seen.features, part.source.labels, new.features, target.static)
    to_source, to_target = _contrast_weights(
        bicl, pulled, part.source.labels, target.static, common
    )
    contrast = stage.contrast
    if contrast.target_to_source:
        losses["target_to_source"] = contrast.target_to_source * to_source * pulled.target_to_source
    if contrast.source_to_target:
        losses["source_to_target"] = contrast.source_to_target * to_target * pulled.source_to_target
    return PartLosses(losses, new, pulled)


def _contrast_weights(
    bicl: pc.BiCL,
    pulled: pc.BiCLOutput,
    source_labels: Tensor,
    static: Tensor | None,
    common: Shares,
) -> tuple[Tensor | float, Tensor | float]:
    """Weigh this rank's means by how many pixels they are over.

    Prototypes of the batch belong to one rank, so there the ranks count alike.
    """
    if not common.processes.shared or bicl.prototypes == "batch":
        return 1 / common.parts, 1 / common.parts
    shared = bicl.source_bank.present & bicl.target_bank.present
    of_target = _pulled(pulled.target_labels, static, shared)
    own = torch.stack([of_target, _labelled(source_labels, shared)])
    weights = own * common.processes.world / common.processes.total(own).clamp(min=1)
    to_source, to_target = (weights / common.parts).float()
    return to_source, to_target
