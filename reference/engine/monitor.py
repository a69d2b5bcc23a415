"""Label-free signs of a run that goes wrong, kept over a resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES
from reference.engine.processes import Processes
from reference.training.alarms import judge


def _counts(labels: Tensor) -> Tensor:
    return torch.bincount(labels[labels != IGNORE].flatten().long(), minlength=NUM_CLASSES)


def _share(counts: Tensor) -> list[float]:
    return (counts.double() / counts.sum().clamp(min=1)).tolist()


class Monitor:
    """Class shares of source labels and of target predictions, judged by `alarms.judge`.

    Every alarm is told once per run. `now` holds, per class, its share among the predictions of the
    window that was closed last, 0..1; None where that saw no target.
    """

    def __init__(self) -> None:
        self.source = torch.zeros(NUM_CLASSES, dtype=torch.int64)
        self.start: list[float] | None = None
        self.now: list[float] | None = None
        self.told: list[str] = []
        self.open: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def see(self, source: Tensor, predictions: Tensor, coverage: Tensor | None) -> None:
        """Take one part of a step.

        Args:
            source: labels of the source images, train ids or 255.
            predictions: the network's class per target cell.
            coverage: (), share of target cells with a pseudo label; None without contrast.
        """
        self.open.append((_counts(source), _counts(predictions), coverage))

    def close(self, processes: Processes) -> tuple[float | None, list[str]]:
        """End a window: the coverage in it, and sentences that were not told before.

        Args:
            processes: whose counts are added up; all must call this.
        """
        self.now = None
        if not self.open:
            return None, []
        device = processes.device
        rows = [
            torch.stack([source, predictions]).to(device) for source, predictions, _ in self.open
        ]
        known = [value.to(device) for _, _, value in self.open if value is not None]
        self.open.clear()
        source, predicted = processes.total(torch.stack(rows).sum(0)).cpu()
        now = self.now = _share(predicted)
        coverage = None
        if known:
            mean = processes.total(torch.stack(known).double().mean()) / processes.world
            coverage = float(mean)
        self.source += source
        if self.start is None:
            self.start = now
            return coverage, []
        found = judge(source=_share(self.source), start=self.start, now=now, coverage=coverage)
        fresh = [name for name in found if name not in self.told]
        self.told += fresh
        return coverage, [found[name] for name in fresh]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; an open window is part of it."""
        return {
            "source": self.source.clone(),
            "start": self.start,
            "told": list(self.told),
            "open": [tuple(row) for row in self.open],
        }

    def load(self, held: Mapping[str, Any], *, whole: bool) -> None:
        """Take `state` over.

        Args:
            held: of `state`.
            whole: whether to take the open window, which one process stored for itself alone.
        """
        self.source = held["source"].clone()
        self.start = held["start"]
        self.told = list(held["told"])
        self.open = [(row[0], row[1], row[2]) for row in held["open"]] if whole else []
