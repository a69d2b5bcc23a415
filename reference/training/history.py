"""What a training run leaves behind: losses, pseudo-label coverage, class shares, warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reference.progress import warn
from reference.training.alarms import class_share, judge


@dataclass(frozen=True)
class Observation:
    """What a step did to its target images, for a caller who wants to look from outside.

    Training has no target labels; whoever passes a callback may have some, and nothing comes
    back from the callback.

    Args:
        step: from 0.
        indices: which target images, (B,), int64.
        flipped: which of them were mirrored left to right, (B,), bool.
        predictions: the network's class per cell, (B, h, w), int64.
        pseudo_labels: the labels the contrast used, (B, h, w), int64, 255 where none; None
            without contrast.
        static_labels: the static ones of this round, (B, h, w), int64, 255 where none; None
            where the run has none yet.
    """

    step: int
    indices: Tensor
    flipped: Tensor
    predictions: Tensor
    pseudo_labels: Tensor | None
    static_labels: Tensor | None


Observer = Callable[[Observation], None]


@dataclass(frozen=True)
class Window:
    """Averages over the steps since the window before.

    Args:
        step: number of steps done when the window closed.
        coverage: share of target pixels with a pseudo label, 0..1; None without contrast.
        label_ratio: per class, share among pseudo labels over share among source labels in the
            same batches, >= 0; None without contrast.
        predicted_share: per class, share among the network's predictions on the target, 0..1.
    """

    step: int
    coverage: float | None
    label_ratio: list[float] | None
    predicted_share: list[float]


class _Step(NamedTuple):
    share: list[float]
    coverage: Tensor | None
    ratio: Tensor | None


@dataclass
class History:
    """The course of one run, ready for JSON by `as_dict`.

    Args:
        run: its name.
        every: steps per window.
        losses: term -> weighted value per step, in nats; None where the term was not active. Their
            sum is what was minimised.
        windows: one per `every` steps where the run looks at target images.
        source_share: per class, share of the source labels, 0..1.
        start_share: per class, share of the predictions on the target before the first step, 0..1;
            None for a run that never looks at the target.
        warnings: alarm -> sentence, each told once, at the step it was first raised.
        seconds: wall time of the run.
    """

    run: str
    every: int = 25
    losses: dict[str, list[float | None]] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    source_share: list[float] | None = None
    start_share: list[float] | None = None
    warnings: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    _open: list[_Step] = field(default_factory=list, repr=False)

    def record_losses(self, step: int, values: Mapping[str, float]) -> None:
        """Append one step's terms, in order of steps."""
        for name in values:
            self.losses.setdefault(name, [None] * step)
        for name, series in self.losses.items():
            series.append(values.get(name))

    def observe(
        self, step: int, predictions: Tensor, coverage: Tensor | None, ratio: Tensor | None
    ) -> None:
        """Take one step's target batch into the open window; close it every `every` steps.

        Args:
            step: from 0.
            predictions: the network's class per target cell, integer, any shape.
            coverage: (), share of target cells with a pseudo label; None without contrast.
            ratio: (C,), as `Window.label_ratio`; None without contrast.
        """
        self._open.append(_Step(class_share(predictions), coverage, ratio))
        if (step + 1) % self.every:
            return
        shares, coverages, ratios = zip(*self._open, strict=True)
        self._open.clear()
        known = coverage is not None and ratio is not None
        self._close(
            Window(
                step=step + 1,
                coverage=float(torch.stack(coverages).mean()) if known else None,
                label_ratio=torch.stack(ratios).mean(dim=0).tolist() if known else None,
                predicted_share=torch.tensor(shares).mean(dim=0).tolist(),
            )
        )

    def _close(self, window: Window) -> None:
        self.windows.append(window)
        if self.source_share is None or self.start_share is None:
            return
        alarms = judge(
            source=self.source_share,
            start=self.start_share,
            now=window.predicted_share,
            coverage=window.coverage,
        )
        for alarm, sentence in alarms.items():
            if alarm not in self.warnings:
                self.warnings[alarm] = f"{self.run}, step {window.step}: {sentence}"
                warn(self.warnings[alarm])

    def as_dict(self) -> dict[str, Any]:
        """The same as plain lists, numbers and strings."""
        return {name: value for name, value in asdict(self).items() if name != "_open"}
