"""Numbers of a run on disk: a CSV file always, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from reference.atomic import write_atomically
from reference.data.classes import NAMES

FILE: Final = "metrics.csv"
TERMS: Final = (
    "source_cross_entropy",
    "static_cross_entropy",
    "source_entropy",
    "entropy",
    "target_to_source",
    "source_to_target",
)
# Share of every class among the predictions on the target, 0..1.
SHARES: Final = tuple(f"share_{name.replace(' ', '_')}" for name in NAMES)
COLUMNS: Final = (
    "iteration",
    "phase",
    "learning_rate",
    *TERMS,
    "coverage",
    "iterations_per_second",
    "data_wait_share",
    "peak_mib",
    "miou_percent",
    "teacher_miou_percent",
    *SHARES,
)


def _line(values: Mapping[str, Any]) -> str:
    file = io.StringIO()
    csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(values)
    return file.getvalue()


def _board(folder: Path) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        return None
    return module.SummaryWriter(str(folder))


class Metrics:
    """The rows of a run; a resumed run first drops those after its checkpoint.

    Args:
        run: folder of the run.
        iteration: that the run goes on from; 0 for a new one.
    """

    def __init__(self, run: Path, iteration: int = 0) -> None:
        self.path = run / FILE
        kept: list[str] = []
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    # The last row may be torn.
                    whole = None not in row.values() and (row["iteration"] or "").isdigit()
                    if whole and int(row["iteration"]) <= iteration:
                        kept.append(_line(row))
        write_atomically(self.path, ",".join(COLUMNS) + "\n" + "".join(kept))
        self._board = _board(run / "tensorboard")

    def write(self, values: Mapping[str, Any]) -> None:
        """Append a row.

        Args:
            values: by column; those left out stay empty.
        """
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(values))
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, values["iteration"])

    def close(self) -> None:
        """Finish what TensorBoard has not written yet."""
        if self._board is not None:
            self._board.close()
