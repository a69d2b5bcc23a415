"""The page of a run on real data: scores, curves, classes, pictures over time, settings."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from reference.data.classes import NAMES
from reference.pictures.page import (
    FeatureSpace,
    compose,
    feature_space_section,
    flattened,
    swatches,
)
from reference.pictures.run_charts import BLUE, GREEN, course_charts, loss_charts, score_charts
from reference.pictures.run_facts import RunFacts
from reference.pictures.time_lapse import time_lapse

_ORANGE, _GREY = "#d98324", "#a9a9a2"


def score_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """List the scores of a run for its bars: source only, last, its moving average, best.

    The best one was chosen on the labels it is scored on, and says so.
    """
    found = facts.evaluations
    if not found:
        return []
    last, best = found[-1], max(found, key=lambda row: float(row["miou_percent"]))
    rows: list[dict[str, Any]] = []

    def add(caption: str, value: float, iteration: int, colour: str) -> None:
        rows.append({"caption": caption, "miou": value, "iteration": iteration, "colour": colour})

    warm = [row for row in found if row["phase"] == "source"]
    if warm and last["phase"] != "source":
        add("source only", warm[-1]["miou_percent"], warm[-1]["iteration"], _GREY)
    add("last", last["miou_percent"], last["iteration"], BLUE)
    if "teacher_miou_percent" in last:
        add("last, moving average", last["teacher_miou_percent"], last["iteration"], GREEN)
    add("best, oracle-selected", best["miou_percent"], best["iteration"], _ORANGE)
    return rows


def headline(facts: RunFacts) -> str:
    """Say in one sentence how far the run is and what it scores."""
    how_far = (
        f"after all {facts.planned} iterations"
        if facts.done >= facts.planned
        else f"after {facts.done} of {facts.planned} iterations"
    )
    found = facts.evaluations
    if not found:
        return f"Not evaluated, {how_far}."
    last = found[-1]
    when = how_far if last["iteration"] == facts.done else f"at iteration {last['iteration']}"
    return f"Mean IoU {last['miou_percent']:.1f}% {when}."


def _space(facts: RunFacts) -> FeatureSpace | None:
    if not facts.moments:
        return None
    ends = [facts.moments[0], facts.moments[-1]] if len(facts.moments) > 1 else facts.moments
    about = (
        "Banks as the run kept them: moving averages over batches, those of the target under the "
        "labels of the contrast."
    )
    if len(ends) == 2 and facts.first_adapted is not None:
        about += (
            f" The first moment is {ends[0][0] - facts.first_adapted} iterations into adaptation, "
            "when the features are still nearly those of the source-only network."
        )
    if not facts.settings["adaptation"]["contrast"]["calibrate"]:
        about += " Calibration is off in this run."
    titles = [f"After iteration {iteration}" for iteration, _ in ends]
    return feature_space_section(about, titles, [moment for _, moment in ends])


def render_run(facts: RunFacts) -> str:
    """Compose the page of a run.

    Args:
        facts: what its folder says.

    Returns:
        str: an HTML document that refers to nothing outside itself.
    """
    table = facts.table
    classes = list(table["rows"][0]["iou"]) if table else list(NAMES)
    return compose(
        "run.html.jinja",
        facts=facts,
        headline=headline(facts),
        scores=score_rows(facts),
        score_chart=[Markup(chart) for chart in score_charts(facts)],
        loss_charts=[Markup(chart) for chart in loss_charts(facts)],
        course_charts=[Markup(chart) for chart in course_charts(facts)],
        table=table,
        palette=swatches(NAMES.index(name) for name in classes),
        lapses=[time_lapse(strips) for strips in facts.strips if strips],
        space=_space(facts),
        settings=flattened(facts.settings),
    )
