"""Signs that a run goes wrong, read without any target label.

Simple alarms fire wrongly. Low mean entropy, high agreement of head and prototypes and close
source and target prototypes are all seen in collapsed runs. Even the share of a class on the
target compared with its share in the source labels misleads, because perfect labels may differ
from the source by a factor of three. So a class raises an alarm only if its share is wrong
compared with the source *and* has moved that way since the run's own start; both ends are
watched, because a run in which one class floods the map and a run in which rare classes vanish
look alike in every average.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from reference.run.ranks import Ranks

# Where healthy ends; all are our own choice, read off toy runs (docs/results.md).
# Share of target pixels with a pseudo label below which there is nothing left to learn from.
_COVERAGE: Final = 0.02
# A flood, over the share in the source labels, over that at the start, and of the map.
_FLOOD_RATIO, _FLOOD_GROWTH, _FLOOD_SHARE = 3.0, 1.4, 0.03
# Share of the map at which one class is a flood whatever the source says.
_TAKEOVER: Final = 0.8
# A class that vanishes, likewise.
_VANISH_RATIO, _VANISH_GROWTH = 0.1, 0.25


def judge(
    names: Sequence[str], *, source: Sequence[float], start: Sequence[float],
    now: Sequence[float], coverage: float | None = None,
) -> dict[str, str]:  # fmt: skip
    """Compare a run with the source labels and with its own start; return alarm -> sentence.

    `source` are the shares of the classes among the source labels, 0..1, of which 0 is watched for
    take-over only; `start` and `now` those among the predictions on the target. `coverage` is the
    share of target pixels with a pseudo label, None where the run uses none.
    """
    alarms: dict[str, str] = {}
    if coverage is not None and coverage < _COVERAGE:
        alarms["coverage"] = (
            f"pseudo labels cover {coverage:.1%} of the target pixels, so the run has next to "
            "nothing to learn from. Hint: lower the threshold."
        )
    for name, expected, before, share in zip(names, source, start, now, strict=True):
        history = f"{before:.1%} at the start, {expected:.1%} of the source labels"
        grown, needed = _FLOOD_GROWTH * before, _FLOOD_RATIO * expected
        takeover = share >= _TAKEOVER and share > grown
        flood = expected > 0 and share >= max(_FLOOD_SHARE, needed, grown)
        vanished = before >= _VANISH_RATIO * expected > share and share < _VANISH_GROWTH * before
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
        # Counts of source labels and of predictions; the sum of coverages and their number.
        self._open: Tensor | None = None

    def _counts(self, labels: Tensor) -> Tensor:
        # The label 255, which is none, falls outside.
        return torch.bincount(labels.flatten().long(), minlength=256)[: len(self.names)].double()

    def see(
        self, source: Tensor, predictions: Tensor | None = None, coverage: Tensor | None = None
    ) -> None:
        """Take the labels of source and predictions on target, if any, of one part of a step.

        `coverage`, (), is the share of target cells with a pseudo label; None without any.
        """
        seen = self._counts(source)
        predicted = torch.zeros_like(seen) if predictions is None else self._counts(predictions)
        known = seen.new_zeros(2)
        if coverage is not None:
            known = torch.stack([coverage.detach().double(), known[1] + 1])
        part = torch.cat([seen, predicted, known])
        self._open = part if self._open is None else self._open.to(part.device) + part

    def close(self, ranks: Ranks) -> tuple[float | None, list[str]]:
        """End a window on all ranks; return its mean coverage and alarms that were not told yet."""
        self.now = None
        if self._open is None:
            return None, []
        total, classes = ranks.total(self._open.to(ranks.device)).cpu(), len(self.names)
        self._open = None
        source, predicted, known = total.split([classes, classes, 2])
        coverage = float(known[0] / known[1]) if known[1] else None
        self.source += source.long()
        alarms: dict[str, str] = {}
        if not source.any():
            alarms["void"] = (
                "no pixel of the source images seen lately has a label, so the run learns nothing "
                "from them. Hint: python -m reference.check_data shows what the labels hold."
            )
        if predicted.any():
            self.now, begun = _shares(predicted), self.start
            self.start = begun or self.now
            if begun is not None:
                given = {"source": _shares(self.source), "start": begun, "now": self.now}
                alarms |= judge(self.names, **given, coverage=coverage)
        fresh = {name: text for name, text in alarms.items() if name not in self.told}
        self.told |= fresh
        return coverage, list(fresh.values())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; an open window is part of it."""
        told = {"start": self.start, "told": dict(self.told)}
        return {"source": self.source.clone(), **told, "open": self._open}

    def load(self, state: Mapping[str, Any], *, whole: bool) -> None:
        """Take a `state` over; `whole`: with the open window, which one rank stored for itself."""
        self.source = state["source"].clone()
        self.start = state["start"]
        self.told = dict(state["told"])
        self._open = state["open"] if whole else None
