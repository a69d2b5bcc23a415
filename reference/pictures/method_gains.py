"""`python -m reference.pictures.method_gains`: gains of related methods, docs/pictures/methods.svg.

Drawn from the numbers in docs/results; `python -m reference.ablate` calls it, too.
"""

import itertools
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tyro

from reference.experiments import tables
from reference.experiments.rows import LABELS, METHOD
from reference.pictures.svg import TEMPLATES, ticks
from reference.run.files import write_atomically

GAIN, LOSS, REST = "#2f6db5", "#b8661b", "#8a8a84"
BESIDE: Final = ("self_training", "bicl", "balanced_prior_no_entropy")
_WIDTH, _LABELS, _TOP, _ROW, _GAP = 900, 350, 40, 26, 28


def draw(targets: Mapping[str, tables.Summary | None]) -> str:
    """Draw the gain of every method: its mean, and every seed."""
    found = {
        name: tables.results_of(summary) for name, summary in targets.items() if summary is not None
    }
    shown = [
        row
        for row in LABELS
        if (row.startswith(METHOD) or row in BESIDE)
        and any(row in results for results in found.values())
    ]
    middles = {row: _TOP + _ROW * (number + 0.5) for number, row in enumerate(shown)}
    wide = (_WIDTH - _LABELS) / len(found)

    def panel(name: str, results: Mapping[str, tables.Result], left: float) -> tuple[Any, ...]:
        gains = {row: results[row].gains for row in shown if row in results and results[row].gains}
        values = [0.0, *itertools.chain.from_iterable(gains.values())]
        low, high = min(values), max(values)

        def at(gain: float) -> float:
            # Marks of the extremes stay a little inside.
            return left + 6 + (gain - low) / (high - low or 1.0) * (wide - _GAP - 12)

        rows = [
            (middles[row], {"helps": GAIN, "harms": LOSS}.get(tables.agreement(each), REST),
             [at(gain) for gain in each], at(statistics.mean(each)))
            for row, each in gains.items()
        ]  # fmt: skip
        marks = [(at(value), f"{value:g}".replace("-", "\u2212")) for value in ticks(low, high, 4)]
        return name, left, left + wide - _GAP, marks, rows

    panels = [panel(*pair, _LABELS + place * wide) for place, pair in enumerate(found.items())]
    return TEMPLATES.get_template("gains.svg.jinja").render(
        title=tables.TITLE, width=_WIDTH, top=_TOP, bottom=_TOP + _ROW * len(shown), panels=panels,
        labels=[(y + 4, tables.label_of(row)) for row, y in middles.items()], left=_LABELS - 12,
        rest=REST,
    )  # fmt: skip


def write(docs: Path = tables.DOCS) -> None:
    """Write the picture, if anything is stored that it could show."""
    found = tables.methods(docs)
    if any(found.values()):
        (docs / "pictures").mkdir(exist_ok=True)
        write_atomically(docs / "pictures" / tables.PICTURE, draw(found))


if __name__ == "__main__":
    tyro.cli(write, prog="python -m reference.pictures.method_gains")
