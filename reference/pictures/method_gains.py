"""`python -m reference.pictures.method_gains`: gains of related methods, docs/pictures/methods.svg.

Drawn from the numbers in docs/results; `python -m reference.ablate` calls it, too.
"""

import itertools
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from markupsafe import escape

from reference.experiments import tables
from reference.experiments.rows import LABELS, METHOD
from reference.experiments.tables import PICTURE, TITLE, Summary, agreement, label_of, results_of
from reference.pictures.svg import ticks, words
from reference.run.files import write_atomically

INK, SOFT, GRID = "#1d1d1b", "#44443f", "#e4e4df"
GAIN, LOSS, REST = "#2f6db5", "#b8661b", "#8a8a84"
BESIDE: Final = ("self_training", "bicl")
_WIDTH, _LABELS, _TOP, _ROW, _GAP = 860, 310, 40, 26, 28


def draw(targets: Mapping[str, Summary | None]) -> str:
    """Draw the gain of every method: its mean, and every seed."""
    found = {name: results_of(summary) for name, summary in targets.items() if summary is not None}
    shown = [
        row
        for row in LABELS
        if (row.startswith(METHOD) or row in BESIDE)
        and any(row in results for results in found.values())
    ]
    height, wide = _TOP + _ROW * len(shown), (_WIDTH - _LABELS) / len(found)
    parts = [words(_LABELS - 12, _middle(n) + 4, label_of(row)) for n, row in enumerate(shown)]
    for place, (name, results) in enumerate(found.items()):
        gains = {n: results[row].gains for n, row in enumerate(shown) if row in results}
        left = _LABELS + place * wide
        parts.append(words(left, _TOP - 14, name, "start", f' font-weight="600" fill="{INK}"'))
        parts += _panel({n: each for n, each in gains.items() if each}, left, wide - _GAP, height)
    note = f"{TITLE}; dot: mean, strokes: seeds, blue: every seed gains, orange: none"
    parts.append(words(_WIDTH / 2, height + 48, note, "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height + 62}" role="img" '
        f'aria-label="{escape(TITLE)}" font-family="sans-serif" font-size="13" fill="{SOFT}">\n'
        f'<rect width="{_WIDTH}" height="{height + 62}" fill="#ffffff"/>\n'
        + "\n".join([*parts, "</svg>\n"])
    )


def _panel(gains: Mapping[int, list[float]], left: float, wide: float, bottom: int) -> list[str]:
    """Draw the gains on one target, by number of the row."""
    values = [0.0, *itertools.chain.from_iterable(gains.values())]
    low, high = min(values), max(values)

    def at(gain: float) -> float:
        # Marks of the extremes stay a little inside.
        return left + 6 + (gain - low) / (high - low or 1.0) * (wide - 12)

    parts = [_line(left, bottom, left + wide, bottom, REST)]
    for value in ticks(low, high):
        parts.append(_line(at(value), _TOP, at(value), bottom, REST if value == 0 else GRID))
        parts.append(words(at(value), bottom + 18, f"{value:g}".replace("-", "\u2212"), "middle"))
    for row, each in gains.items():
        y, colour = _middle(row), {"helps": GAIN, "harms": LOSS}.get(agreement(each), REST)
        parts.append(_line(at(min(each)), y, at(max(each)), y, colour, 2))
        parts += [_line(at(gain), y - 5, at(gain), y + 5, colour, 1.5) for gain in each]
        mean = at(statistics.mean(each))
        parts.append(f'<circle cx="{mean:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
    return parts


def _middle(row: int) -> float:
    return _TOP + _ROW * (row + 0.5)


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, thick: float = 1) -> str:
    path = f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
    return f'<path d="{path}" stroke="{colour}" stroke-width="{thick}"/>'


def write(docs: Path = tables.DOCS) -> None:
    """Write the picture, if anything is stored that it could show."""
    found = tables.methods(docs)
    if any(found.values()):
        (docs / "pictures").mkdir(exist_ok=True)
        write_atomically(docs / "pictures" / PICTURE, draw(found))


if __name__ == "__main__":
    write()
