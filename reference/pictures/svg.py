"""Charts as SVG elements that follow the page: its width, its font, its light or dark colours.

Where everything stands is computed here; charts.jinja has the elements.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

Series = Sequence[tuple[float, float]]

TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
    autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
)  # fmt: skip
# A unit is a pixel on a phone, where a chart is about as wide as its drawing.
_WIDTH, _HEIGHT = 340.0, 190.0
_TEXT: Final = 14.5
_MOST_POINTS, _MOST_DOTS = 300, 12


def thinned(points: Series, most: int = _MOST_POINTS) -> Series:
    """Average neighbours so that at most so many points are left."""
    size = -(-len(points) // most)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose round numbers within a range, 1, 2 or 5 times a power of ten apart.

    Example:
        >>> ticks(0, 47)
        [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        front, power = f"{value:.5e}".split("e")
        return f"{float(front):g}e{int(power)}"
    return f"{value:.6g}"


def drawn(kind: str, **values: Any) -> Markup:
    """Fill a macro of charts.jinja."""
    module = TEMPLATES.get_template("charts.jinja").module
    return Markup(getattr(module, kind)(**values))


def line_chart(
    title: str, series: Mapping[str, tuple[str, Series]], *, y_label: str,
    y_range: tuple[float, float] | None = None, marks: Sequence[float] = (),
) -> Markup:  # fmt: skip
    """Draw lines over iterations as a ``<figure>``, their names below where there are several.

    `series` is name -> (colour in CSS, points in order of x), those without points being left out.
    Without a `y_range` the vertical axis fits the points, from 0. Iterations of `marks`, such as
    the start of a round, have a thin line.
    """
    shown = {name: (colour, thinned(points)) for name, (colour, points) in series.items() if points}
    points = [point for _, line in shown.values() for point in line] or [(0.0, 0.0)]
    iterations, values = zip(*points, strict=True)
    low, high = y_range or (min(0.0, *values), max(values))
    high = high if high > low else low + 1
    first, last = min(0.0, *iterations), max(*iterations, 1.0)
    labels = {value: _number(value) for value in ticks(low, high)}
    left = 8 + 0.58 * _TEXT * max(map(len, labels.values()))
    top, bottom, right = 8.0, _HEIGHT - 24, _WIDTH - 18

    def across(x: float) -> float:
        return left + (x - first) / (last - first) * (right - left)

    def down(y: float) -> float:
        return bottom - (min(max(y, low), high) - low) / (high - low) * (bottom - top)

    return drawn(
        "line_chart", title=title, unit=y_label, width=_WIDTH, height=_HEIGHT,
        box=(left, top, right, bottom), grid=[(down(y), text) for y, text in labels.items()],
        marks=[across(mark) for mark in marks if first < mark < last],
        steps=[(across(x), _number(x)) for x in ticks(first, last, 4)],
        # Few points are measurements of their own, not a curve.
        lines=[
            (name, colour, [(across(x), down(y)) for x, y in line], len(line) <= _MOST_DOTS)
            for name, (colour, line) in shown.items()
        ],
    )  # fmt: skip


def sparkline(points: Series) -> Markup:
    """Draw a line without axes, from 0 to its largest value."""
    spots = thinned(points, 60)
    first, last = spots[0][0], spots[-1][0]
    high = max(y for _, y in spots) or 1.0
    scale = 76 / ((last - first) or 1)
    line = [(2 + (x - first) * scale, 22 - 20 * y / high) for x, y in spots]
    return drawn("sparkline", line=line)
