"""Signs that a run goes wrong, read without any target label.

Simple alarms fire wrongly. Low mean entropy, high agreement of head and prototypes and close
source and target prototypes are all seen in collapsed runs. Even the share of a class on the
target compared with its share in the source labels misleads, because perfect labels may differ
from the source by a factor of three. So a class raises an alarm only if its share is wrong
compared with the source *and* has moved that way since the run's own start; both ends are
watched, because a run in which one class floods the map and a run in which rare classes vanish
look alike in every average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from reference.run.ranks import Ranks


@dataclass(frozen=True)
class Limits:
    """Where healthy ends; all are our own choice, read off toy runs (docs/results.md)."""

    # share of target pixels with a pseudo label below which there is nothing left to learn from
    coverage: float = 0.02
    # share on the target over share in the source labels
    flood_ratio: float = 3.0
    # share on the target over share at the start of the run
    flood_growth: float = 1.4
    # smallest share of the map that counts as a flood
    flood_share: float = 0.03
    # share of the map at which one class is a flood whatever the source says
    takeover_share: float = 0.8
    # share on the target over share in the source labels
    vanish_ratio: float = 0.1
    # share on the target over share at the start of the run
    vanish_growth: float = 0.25


DEFAULT_LIMITS: Final = Limits()


def judge(
    names: Sequence[str],
    *,
    source: Sequence[float],
    start: Sequence[float],
    now: Sequence[float],
    coverage: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, str]:
    """Compare a run with the source labels and with its own start.

    Args:
        names: of the classes.
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
    for name, expected, before, share in zip(names, source, start, now, strict=True):
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


def _shares(counts: Tensor) -> list[float]:
    return (counts.double() / counts.sum().clamp(min=1)).tolist()


class Monitor:
    """Class shares of source labels and of target predictions, judged window by window.

    Args:
        names: of the classes.

    Attributes:
        now: per class, its share among the predictions of the window that was closed last, 0..1;
            None where that saw no target.
        told: alarm -> sentence; each is told once a run.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.source = torch.zeros(len(self.names), dtype=torch.int64)
        self.start: list[float] | None = None
        self.now: list[float] | None = None
        self.told: dict[str, str] = {}
        # Per part: counts of source labels and of predictions; coverage and whether there is one.
        self._open: list[tuple[Tensor, Tensor]] = []

    def _counts(self, labels: Tensor) -> Tensor:
        # The label 255, which is none, falls outside.
        return torch.bincount(labels.flatten().long(), minlength=256)[: len(self.names)]

    def see(
        self, source: Tensor, predictions: Tensor | None = None, coverage: Tensor | None = None
    ) -> None:
        """Take one part of a step.

        Args:
            source: labels of the source images, 255 where there is none.
            predictions: the network's class per target cell; None where it saw no target.
            coverage: (), share of target cells with a pseudo label; None without any.
        """
        seen = self._counts(source)
        predicted = torch.zeros_like(seen) if predictions is None else self._counts(predictions)
        known = seen.new_zeros(2, dtype=torch.float64)
        if coverage is not None:
            known = torch.stack([coverage.detach().double(), known[1] + 1])
        self._open.append((torch.stack([seen, predicted]), known))

    def close(self, ranks: Ranks) -> tuple[float | None, list[str]]:
        """End a window; all ranks must call this.

        Returns:
            The mean coverage in it, None without any, and alarms that were not told before.
        """
        self.now = None
        if not self._open:
            return None, []
        rows, knowns = zip(*self._open, strict=True)
        self._open.clear()
        counts = ranks.total(torch.stack([row.to(ranks.device) for row in rows]).sum(dim=0)).cpu()
        known = ranks.total(torch.stack([k.to(ranks.device) for k in knowns]).sum(dim=0)).tolist()
        coverage = known[0] / known[1] if known[1] else None
        source, predicted = counts
        self.source += source
        alarms: dict[str, str] = {}
        if not source.any():
            alarms["void"] = (
                "no pixel of the source images seen lately has a label, so the run learns nothing "
                "from them. Hint: python -m reference.check_data shows what the labels hold."
            )
        if predicted.any():
            self.now = _shares(predicted)
            if self.start is None:
                self.start = self.now
            else:
                alarms |= judge(
                    self.names,
                    source=_shares(self.source),
                    start=self.start,
                    now=self.now,
                    coverage=coverage,
                )
        fresh = {name: text for name, text in alarms.items() if name not in self.told}
        self.told |= fresh
        return coverage, list(fresh.values())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; an open window is part of it."""
        return {
            "source": self.source.clone(),
            "start": self.start,
            "told": dict(self.told),
            "open": list(self._open),
        }

    def load(self, state: Mapping[str, Any], *, whole: bool) -> None:
        """Take a `state` over.

        Args:
            state: of the run's checkpoint.
            whole: whether to take the open window, which one rank stored for itself alone.
        """
        self.source = state["source"].clone()
        self.start = state["start"]
        self.told = dict(state["told"])
        self._open = [(row[0], row[1]) for row in state["open"]] if whole else []
