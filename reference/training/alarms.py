"""Signs that adaptation goes wrong, read without any target label.

Simple alarms fire wrongly. Low mean entropy, high agreement of head and prototypes and close
source and target prototypes are all seen in collapsed runs. Even the share of a class on the
target compared with its share in the source labels misleads, because perfect labels may differ
from the source by a factor of three. So a class raises an alarm only if its share is wrong
compared with the source *and* has moved that way since the run's own start; both ends are
watched, because a run in which one class floods the map and a run in which rare classes vanish
look alike in every average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from reference.data.classes import IGNORE, NAMES, NUM_CLASSES
from reference.networks.toy import unit_range


@dataclass(frozen=True)
class Limits:
    """Where healthy ends; all are our own choice, read off toy runs (docs/results.md).

    Args:
        coverage: share of target pixels with a pseudo label, 0..1, below which there is nothing
            left to learn from.
        flood_ratio: share on the target over share in the source labels.
        flood_growth: share on the target over share at the start of the run.
        flood_share: smallest share of the map, 0..1, that counts as a flood.
        takeover_share: share of the map, 0..1, at which one class is a flood whatever the source
            says.
        vanish_ratio: share on the target over share in the source labels.
        vanish_growth: share on the target over share at the start of the run.
    """

    coverage: float = 0.02
    flood_ratio: float = 3.0
    flood_growth: float = 1.4
    flood_share: float = 0.03
    takeover_share: float = 0.8
    vanish_ratio: float = 0.1
    vanish_growth: float = 0.25


DEFAULT_LIMITS: Final = Limits()


def class_share(labels: Tensor) -> list[float]:
    """Share of every class among the labelled pixels, 0..1 each; all 0 where nothing is labelled.

    Args:
        labels: train ids, 255 is left out.

    Shape:
        labels any shape, integer.
    """
    counts = torch.bincount(labels[labels != IGNORE].flatten().long(), minlength=NUM_CLASSES)
    return (counts.double() / counts.sum().clamp(min=1)).tolist()


@torch.no_grad()
def predicted_share(network: nn.Module, images: Tensor, *, batch_size: int = 10) -> list[float]:
    """Share of every class among the network's predictions at stride 4, 0..1 each.

    Args:
        network: gives `Output` for float images.
        images: unlabelled images as stored.
        batch_size: images per forward pass.

    Shape:
        images (N, 3, H, W), uint8.
    """
    batches = images.split(batch_size)
    return class_share(torch.cat([network(unit_range(b)).logits.argmax(dim=1) for b in batches]))


def judge(
    *,
    source: Sequence[float],
    start: Sequence[float],
    now: Sequence[float],
    coverage: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, str]:
    """Compare a run with the source labels and with its own start.

    Args:
        source: share of every class in the source labels, 0..1.
        start: share of every class in the predictions on the target before the run, 0..1.
        now: the same share now.
        coverage: share of target pixels with a pseudo label; None where the run uses none.
        limits: where healthy ends.

    Returns:
        dict: alarm -> one sentence; empty for a healthy run. Keys are "coverage" and
        "flood <class>" or "vanish <class>", stable over a run, so each need be told only once.
        A class without source pixels is watched for take-over only.
    """
    alarms: dict[str, str] = {}
    if coverage is not None and coverage < limits.coverage:
        alarms["coverage"] = (
            f"pseudo labels cover {coverage:.1%} of the target pixels, so the run has next to "
            "nothing to learn from. Hint: lower the threshold."
        )
    for name, expected, before, share in zip(NAMES, source, start, now, strict=True):
        history = f"{before:.1%} at the start, {expected:.1%} of the source labels"
        takeover = share >= limits.takeover_share and share > limits.flood_growth * before
        flood = expected > 0 and share >= max(
            limits.flood_share, limits.flood_ratio * expected, limits.flood_growth * before
        )
        vanished = (
            before >= limits.vanish_ratio * expected > share
            and share < limits.vanish_growth * before
        )
        if takeover or flood:
            alarms[f"flood {name}"] = (
                f"{name} floods the target: {share:.1%} of its predicted pixels ({history})."
            )
        elif vanished:
            alarms[f"vanish {name}"] = (
                f"{name} vanishes from the target: {share:.2%} of its predicted pixels ({history})."
            )
    return alarms
