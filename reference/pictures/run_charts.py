"""Curves of a run: losses, learning rate, data, pseudo labels, class shares, scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from reference.data.classes import NAMES, PALETTE
from reference.pictures.charts import Series, line_chart
from reference.pictures.page import hexadecimal
from reference.pictures.run_facts import RunFacts

BLUE, GREEN = "#2457c5", "#2f8f5b"
_TERMS: Final = {
    "source_cross_entropy": "Cross-entropy on source labels",
    "static_cross_entropy": "Cross-entropy on static labels",
    "source_entropy": "Entropy on the source",
    "entropy": "Entropy on the target",
    "target_to_source": "Contrast, target to source",
    "source_to_target": "Contrast, source to target",
}
_MOST_POINTS: Final = 300


def thinned(points: Series) -> Series:
    """Average neighbours so that at most 300 points are left.

    Example:
        >>> len(thinned([(float(i), 1.0) for i in range(1000)]))
        250
    """
    size = -(-len(points) // _MOST_POINTS)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def loss_charts(facts: RunFacts) -> list[str]:
    """Draw one chart per loss term that the run has."""
    return [
        _chart(title, {title: thinned(points)}, facts, "nats, as weighted")
        for term, title in _TERMS.items()
        if (points := facts.column(term))
    ]


def course_charts(facts: RunFacts) -> list[str]:
    """Draw the learning rate, speed and waiting, pseudo labels and class shares."""
    rates = [value for _, value in facts.column("learning_rate")]
    power = -math.floor(math.log10(max(rates))) if rates and max(rates) > 0 else 0
    rate = 10.0**power, f"times 1e-{power}"
    charts = [
        _chart(title, {title: thinned(facts.column(name, scale))}, facts, label, ends)
        for title, name, scale, label, ends in (
            ("Learning rate of the backbone", "learning_rate", *rate, None),
            ("Coverage of pseudo labels", "coverage", 100, "% of target cells", (0.0, 100.0)),
            ("Waiting for data", "data_wait_share", 100, "% of the time", (0.0, 100.0)),
            ("Speed", "iterations_per_second", 1, "iterations per second", None),
        )
        if facts.column(name)
    ]
    shares = {
        name: [point for point in thinned(facts.column(column, 100)) if point[1] > 0]
        for name in NAMES
        if facts.column(column := f"share_{name.replace(' ', '_')}")
    }
    if shares:
        charts.append(
            line_chart(
                "Predicted classes on the target",
                shares,
                {name: hexadecimal(PALETTE[label]) for label, name in enumerate(NAMES)},
                x_label="iteration",
                y_label="% of target cells",
                marks=facts.boundaries,
                logarithmic=True,
                legend=False,
            )
        )
    return charts


def _chart(
    title: str,
    series: Mapping[str, Series],
    facts: RunFacts,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> str:
    return line_chart(
        title,
        series,
        dict.fromkeys(series, BLUE),
        x_label="iteration",
        y_label=y_label,
        y_range=y_range,
        marks=facts.boundaries,
        legend=False,
    )


def score_charts(facts: RunFacts) -> list[str]:
    """Draw the scores over time; nothing where there are fewer than two."""
    series = {
        "trained network": facts.column("miou_percent"),
        "moving average": facts.column("teacher_miou_percent"),
    }
    if len(series["trained network"]) < 2:
        return []
    return [
        line_chart(
            "Evaluations",
            series,
            {"trained network": BLUE, "moving average": GREEN},
            x_label="iteration",
            y_label="mean IoU, %",
            marks=facts.boundaries,
            legend=bool(series["moving average"]),
        )
    ]
