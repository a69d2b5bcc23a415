"""`python -m reference.pictures.method_gains`: gains of related methods, docs/pictures/methods.svg.

Drawn from the numbers in docs/results; `python -m reference.ablate` calls it, too.
"""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.figure import Figure

from reference.experiments import tables
from reference.experiments.rows import LABELS, METHOD
from reference.experiments.tables import PICTURE, TITLE, Summary, agreement, label_of, results_of
from reference.run.files import write_atomically

INK: Final = "#1d1d1b"
GAIN, LOSS, REST = "#2f6db5", "#b8661b", "#8a8a84"
BESIDE: Final = ("self_training", "bicl")


@contextmanager
def drawing(title: str) -> Iterator[None]:
    """Draw in the look of the reports, with text as text.

    Args:
        title: tells the ids of charts of one page apart.
    """
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": title,
            "font.family": ["sans-serif"],
            "font.size": 9,
            "axes.edgecolor": "#8a8a84",
            "axes.labelcolor": "#44443f",
            "xtick.color": "#44443f",
            "ytick.color": "#44443f",
        }
    ):
        yield


def as_svg(figure: Figure, title: str) -> str:
    """Write a figure as an ``<svg>`` element; inside `drawing`.

    Args:
        figure: the chart.
        title: what it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_html(buffer.getvalue(), title)


def _for_html(svg: str, title: str) -> str:
    """Drop what belongs to a file of its own, so that the page's font, width and ids hold."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"<style.*?</style>", "", element, flags=re.DOTALL)
    element = re.sub(r' id="[a-zA-Z0-9.]+_[^"]*"', "", element)
    element = re.sub(r" font-family: [^;]*;", "", element)
    for side in ("width", "height"):
        element = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", element, count=1)
    return element.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def draw(targets: Mapping[str, Summary | None]) -> str:
    """Draw the gain of every method: its mean, and every seed."""
    found = {name: results_of(summary) for name, summary in targets.items() if summary is not None}
    shown = [
        row
        for row in LABELS
        if (row.startswith(METHOD) or row in BESIDE)
        and any(row in results for results in found.values())
    ]
    with drawing(TITLE):
        figure = Figure(figsize=(8.6, 0.9 + 0.26 * len(shown)), layout="constrained")
        panels = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, (name, results) in zip(panels, found.items(), strict=True):
            axes.axvline(0, color=REST, linewidth=1)
            for place, row in enumerate(shown):
                if row not in results or not results[row].gains:
                    continue
                gains = results[row].gains
                middle = statistics.mean(gains)
                colour = {"helps": GAIN, "harms": LOSS}.get(agreement(gains), REST)
                axes.plot([min(gains), max(gains)], [place, place], color=colour, linewidth=1.4)
                axes.plot(gains, [place] * len(gains), "|", color=colour, markersize=7)
                axes.plot([middle], [place], "o", color=colour, markersize=6)
            axes.set_yticks(range(len(shown)), [label_of(row) for row in shown])
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK)
            axes.grid(axis="x", color="#e4e4df", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(axis="y", length=0)
            axes.spines[["top", "right", "left"]].set_visible(False)
        figure.supxlabel(
            f"{TITLE}; dot: mean, strokes: seeds, blue: every seed gains, orange: none",
            fontsize=9,
            color="#44443f",
        )
        return as_svg(figure, TITLE)


def write(docs: Path = tables.DOCS) -> None:
    """Write the picture, if anything is stored that it could show."""
    found = tables.methods(docs)
    if any(found.values()):
        (docs / "pictures").mkdir(exist_ok=True)
        write_atomically(docs / "pictures" / PICTURE, draw(found))


if __name__ == "__main__":
    write()
