"""What a run folder says about its run, as the page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reference.pictures.charts import Series
from reference.pictures.domain_prototypes import Prototypes
from reference.pictures.strip_files import StripFile


@dataclass(frozen=True)
class RunFacts:
    """What a run folder says about its run.

    Args:
        name: of the folder.
        settings: of the run, as plain tables.
        preset: the named settings that are nearest.
        changes: what differs from those, "name: before -> now".
        starts: per start of the command, "iteration", "command", "commit", "code", "versions" and
            "machine".
        rows: the lines of the metrics in order, by column; columns without a number are left out.
        boundaries: first iteration of every phase but the first.
        planned: iterations of the whole run.
        alarms: names of the alarms that were raised without target labels.
        table: the table per class as JSON holds it; None before the first evaluation.
        strips: per image its panels in order of iterations.
        moments: (iteration, prototypes) in order of iterations.
        first_adapted: first iteration of adaptation; None for a run without.
    """

    name: str
    settings: Mapping[str, Any]
    preset: str
    changes: Sequence[str]
    starts: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    boundaries: Sequence[int]
    planned: int
    alarms: Sequence[str] = ()
    table: Mapping[str, Any] | None = None
    strips: Sequence[Sequence[StripFile]] = ()
    moments: Sequence[tuple[int, Prototypes]] = ()
    first_adapted: int | None = None

    @property
    def done(self) -> int:
        """Iterations on record."""
        return max((row["iteration"] for row in self.rows), default=0)

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The rows with a score."""
        return [row for row in self.rows if "miou_percent" in row]

    def column(self, name: str, scale: float = 1.0) -> Series:
        """Return the points (iteration, value * scale) of a column."""
        return [(float(r["iteration"]), scale * r[name]) for r in self.rows if name in r]
