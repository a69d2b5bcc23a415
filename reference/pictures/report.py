"""The page of the demo: what adaptation changed, in a table, pictures and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from markupsafe import Markup

from reference.experiments.row_names import CONTROL
from reference.experiments.rows import CAPTIONS, Row
from reference.experiments.scenario import Scenario
from reference.experiments.verdict import explanation, gain, headline
from reference.pictures.charts import Series, line_chart
from reference.pictures.domain_prototypes import fitted_prototypes, prototypes_of
from reference.pictures.page import (
    FeatureSpace,
    compose,
    feature_space_section,
    flattened,
    swatches,
)
from reference.pictures.visualise import Strip

COLOURS: Final = {
    "source only": "#a9a9a2",
    "continued": "#62625c",
    "entropy only": "#d98324",
    "BiCL": "#2457c5",
    "oracle": "#2f8f5b",
}
_TERMS: Final = {
    "cross_entropy": "Cross-entropy on labels",
    "source_cross_entropy": "Cross-entropy on source labels",
    "static_cross_entropy": "Cross-entropy on static labels",
    "entropy": "Entropy on the target",
    "target_to_source": "Contrast, target to source",
    "source_to_target": "Contrast, source to target",
}
_LABELS: Final = {
    "used by the contrast": ("pseudo_labels", "#2457c5"),
    "static part": ("static_labels", "#8b5fbf"),
    "all predictions": ("predictions", "#8a8a84"),
}
_STEPS_PER_POINT: Final = 10
_PERCENT: Final = (0.0, 100.0)


def _averaged(values: Sequence[float | None]) -> Series:
    """Average every 10 steps, where the term was active; x is the last step of each group."""
    points = []
    for start in range(0, len(values), _STEPS_PER_POINT):
        group = [value for value in values[start : start + _STEPS_PER_POINT] if value is not None]
        if group:
            last = min(start + _STEPS_PER_POINT, len(values))
            points.append((float(last), sum(group) / len(group)))
    return points


def loss_charts(rows: Mapping[str, Row]) -> list[str]:
    """Draw one chart per loss term, one line per run that has the term."""
    charts = []
    for term, title in _TERMS.items():
        series = {
            CAPTIONS[name]: _averaged(row.trained.history.losses[term])
            for name, row in rows.items()
            if term in row.trained.history.losses
        }
        if series:
            charts.append(
                line_chart(title, series, COLOURS, x_label="step", y_label="nats, as weighted")
            )
    return charts


def pseudo_label_charts(row: Row) -> list[str]:
    """Draw how many pseudo labels a run has, and how many of them are right where that is known."""
    windows = row.trained.history.windows
    coverage = [(float(w.step), 100 * w.coverage) for w in windows if w.coverage is not None]
    charts = [
        line_chart(
            "Coverage of pseudo labels",
            {"BiCL": coverage},
            COLOURS,
            x_label="step",
            y_label="% of target cells",
            y_range=_PERCENT,
        )
    ]
    if row.accuracy:
        right: dict[str, Series] = {}
        for caption, (field, _) in _LABELS.items():
            values = [(float(point.step), getattr(point, field)) for point in row.accuracy]
            right[caption] = [(step, value) for step, value in values if value is not None]
        colours = {caption: colour for caption, (_, colour) in _LABELS.items()}
        charts.append(
            line_chart(
                "Pseudo labels that are right",
                right,
                colours,
                x_label="step",
                y_label="% of labels",
                y_range=_PERCENT,
            )
        )
    return charts


def prototype_section(rows: Mapping[str, Row], scenario: Scenario) -> FeatureSpace:
    """Draw where the classes of both domains lie before and after adaptation with BiCL.

    Args:
        rows: the trained rows by name; needs "source_only" and "bicl".
        scenario: the data.

    Raises:
        ValueError: the run had no contrast, or the source has no labels.
    """
    trained = rows["bicl"].trained
    if trained.bicl is None:
        raise ValueError(
            "prototype_section: expected a run with contrast, got one whose bicl is None."
        )
    network = rows["source_only"].trained.network
    bank = trained.bicl.source_bank
    before = fitted_prototypes(network, scenario.source, scenario.target_images, bank)
    after = prototypes_of(trained.bicl.state_dict())
    if not trained.bicl.calibrate:
        after = replace(after, calibrated=None)
    about = (
        "Before: exact means of the source-only network's features over training images, target "
        "cells by the network's own predictions. After: the banks and the bias of BiCL at the end, "
        "moving averages over batches, target cells by the labels of the contrast."
    )
    return feature_space_section(about, ["Before adaptation", "After adaptation"], [before, after])


def render(
    results: Mapping[str, Any],
    rows: Mapping[str, Row],
    *,
    domains: Sequence[Strip],
    predictions: Sequence[Strip],
    pseudo_labels: Sequence[Strip],
    space: FeatureSpace | None = None,
) -> str:
    """Compose the page.

    Args:
        results: as written to results.json.
        rows: the trained rows by name; needs "bicl".
        domains: strips of images of either domain.
        predictions: strips of test images.
        pseudo_labels: strips of target training images.
        space: prototypes before and after; None leaves them out.

    Returns:
        str: an HTML document that refers to nothing outside itself.
    """
    shown = [
        {"name": name, "caption": caption, "colour": COLOURS[caption], **results[name]}
        for name, caption in CAPTIONS.items()
        if name in results
    ]
    return compose(
        "report.html.jinja",
        results=results,
        headline=headline(results),
        explanation=explanation(results),
        gains={row["name"]: gain(results, row["name"], CONTROL) for row in shown},
        rows=shown,
        control=CONTROL,
        palette=swatches(results["train_ids"]),
        domains=domains,
        predictions=predictions,
        pseudo_labels=pseudo_labels,
        label_charts=[Markup(chart) for chart in pseudo_label_charts(rows["bicl"])],
        loss_charts=[Markup(chart) for chart in loss_charts(rows)],
        space=space,
        steps_per_point=_STEPS_PER_POINT,
        settings=flattened(results["settings"]),
    )
