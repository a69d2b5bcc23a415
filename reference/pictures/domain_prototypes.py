"""Prototypes of both domains at one moment, and how well the domains agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.networks.toy import SegmentationNetwork, unit_range
from reference.pictures.visualise import spread_indices
from reference.training.losses import cell_labels

_MOST: Final = 100
_BATCH: Final = 10


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of both domains at one moment.

    Args:
        source, target: one row per class.
        calibrated: source prototypes moved by the domain bias; None where there is no bias.
        source_present, target_present: which rows are known.

    Shape:
        source, target and calibrated (C, D), floating; the others (C,), bool.
    """

    source: Tensor
    target: Tensor
    calibrated: Tensor | None
    source_present: Tensor
    target_present: Tensor

    @property
    def classes(self) -> list[int]:
        """Train ids with a prototype in either domain."""
        known: list[int] = (self.source_present | self.target_present).nonzero().flatten().tolist()
        return known

    @property
    def shared(self) -> list[int]:
        """Train ids with a prototype in both domains."""
        both: list[int] = (self.source_present & self.target_present).nonzero().flatten().tolist()
        return both

    def cosines(self) -> Tensor:
        """Return the cosine of every source prototype (row) with every target one, (C, C)."""
        return units(self.source) @ units(self.target).T


def units(rows: Tensor) -> Tensor:
    """Scale every row to unit length, in float64; a row of zeros stays."""
    return F.normalize(rows.detach().cpu().double(), dim=1)


def prototypes_of(state: Mapping[str, Any]) -> Prototypes:
    """Read the prototypes out of the state dict of `protocontrast.BiCL`.

    Args:
        state: as a checkpoint or a file below ``prototypes/`` holds it.

    Raises:
        ValueError: it is something else.
    """
    try:
        source, target = (state[f"{name}_bank.prototypes"] for name in ("source", "target"))
        present = [state[f"{name}_bank.present"] for name in ("source", "target")]
        bias = pc.DomainBias(*source.shape)
        bias.load_state_dict(
            {name: state[f"domain_bias.{name}"] for name in ("bias", "present", "count")}
        )
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(
            "prototypes_of: expected the state of BiCL with two banks and a bias, got entries "
            f"{', '.join(sorted(map(str, state)))}."
        ) from error
    return Prototypes(source, target, bias.calibrate(source), present[0], present[1])


@torch.no_grad()
def fitted_prototypes(
    network: SegmentationNetwork, source: ArrayDomain, target_images: Tensor, like: pc.PrototypeBank
) -> Prototypes:
    """Take exact class means of a network's features over both domains, without a bias.

    Source cells go by their labels, target cells by the network's own predictions, so that no
    target label is needed.

    Args:
        network: any; is read only.
        source: images with labels; at most 100, evenly spaced, are read.
        target_images: likewise, without labels.
        like: whose normalisation is taken over.

    Shape:
        target_images (N, 3, H, W), uint8.

    Raises:
        ValueError: the source has no labels.
    """

    def batches(images: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        for group in torch.tensor(spread_indices(len(images), _MOST)).split(_BATCH):
            output = network(unit_range(images[group]))
            known = output.logits.argmax(dim=1) if labels is None else cell_labels(labels[group])
            yield output.features, known

    if source.labels is None:
        raise ValueError("fitted_prototypes: expected a source with labels, got one without.")

    def fitted(images: Tensor, labels: Tensor | None) -> pc.PrototypeBank:
        bank = pc.PrototypeBank(like.num_classes, like.dim, normalize=like.normalize)
        return bank.fit(batches(images, labels))

    one, other = fitted(source.images, source.labels), fitted(target_images, None)
    return Prototypes(one.prototypes, other.prototypes, None, one.present, other.present)


@dataclass(frozen=True)
class Alignment:
    """How near classes are to themselves across the domains, and to each other.

    Args:
        own: mean cosine of a source prototype with the target prototype of its class, -1..1.
        other: mean over classes of the largest cosine with the target prototype of another class.
        nearest_own: share of source prototypes whose nearest target prototype is their own, 0..1.
        classes: how many classes have a prototype in both domains.
    """

    own: float
    other: float
    nearest_own: float
    classes: int


def alignment(moment: Prototypes) -> Alignment | None:
    """Measure how well the domains agree; None where fewer than two classes are in both.

    Args:
        moment: prototypes of both domains.
    """
    shared = moment.shared
    if len(shared) < 2:
        return None
    cosines = moment.cosines()[shared][:, shared]
    own = cosines.diag()
    other = cosines.clone().fill_diagonal_(-2).max(dim=1).values
    return Alignment(
        float(own.mean()), float(other.mean()), float((own > other).double().mean()), len(shared)
    )
