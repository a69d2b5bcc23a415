"""Charts as SVG elements that an HTML page can hold."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import matplotlib
from matplotlib.figure import Figure

Series = Sequence[tuple[float, float]]
INK: Final = "#1d1d1b"


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


def line_chart(
    title: str,
    series: Mapping[str, Series],
    colours: Mapping[str, str],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[float] = (),
    logarithmic: bool = False,
    legend: bool = True,
) -> str:
    """Draw lines as an SVG element for an HTML page.

    Args:
        title: stands above the chart and tells charts of one page apart.
        series: name -> points (x, y); names without points are left out.
        colours: name -> colour; grey where a name is missing.
        x_label: with the unit.
        y_label: with the unit.
        y_range: ends of the vertical axis; None fits the points, from 0 unless logarithmic.
        marks: places on the horizontal axis with a thin line, such as the start of a round.
        logarithmic: scale the vertical axis by powers of ten; points must then be above 0.
        legend: name the lines inside the chart.

    Returns:
        str: an ``<svg>`` element, without the XML prologue that HTML forbids.
    """
    with drawing(title):
        figure = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for mark in marks:
            axes.axvline(mark, color="#d2d2cb", linewidth=0.8, zorder=0)
        for name, points in series.items():
            if points:
                xs, ys = zip(*points, strict=True)
                axes.plot(
                    xs, ys, label=name, color=colours.get(name, "#777777"), linewidth=1.6,
                    marker="o" if len(points) == 1 else None, markersize=3,
                )  # fmt: skip
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y", color="#e4e4df", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = any(series.values())
        if logarithmic and drawn:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        if y_range is not None:
            axes.set_ylim(*y_range)
        elif drawn and not logarithmic:
            axes.set_ylim(bottom=0)
        if drawn and legend:
            axes.legend(frameon=False, fontsize=8, loc="best")
        return as_svg(figure, title)


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
