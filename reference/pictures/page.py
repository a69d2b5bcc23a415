"""The page of one run or of several beside each other: one HTML file that needs nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
from markupsafe import Markup

from reference.pictures.paint import UNLABELLED, data_uri, hexadecimal, spread_indices
from reference.pictures.prototypes import alignment, cosine_rows, planes
from reference.pictures.recorded_run import Comparison, RecordedRun, belongs_to_one_run
from reference.pictures.scores import (
    OTHERS,
    Score,
    before,
    changes_of,
    explanation,
    headline,
    pair,
    scores,
    signed,
    subject,
)
from reference.pictures.strip_files import StripFile
from reference.pictures.svg import Series, line_chart, sparkline
from reference.run.report import LOSS, SHARE

_TITLES: Final = {
    "source_cross_entropy": "Cross-entropy on source labels",
    "static_cross_entropy": "Cross-entropy on static labels",
    "source_entropy": "Entropy on the source",
    "entropy": "Entropy on the target",
    "target_to_source": "Contrast, target to source",
    "source_to_target": "Contrast, source to target",
}
# Settings that BiCL multiplies its terms with.
_WEIGHTS: Final = {
    "static_cross_entropy": "adaptation.static_weight",
    "source_entropy": "adaptation.source_entropy_weight",
    "entropy": "adaptation.entropy_weight",
    "target_to_source": "adaptation.contrast.target_to_source",
    "source_to_target": "adaptation.contrast.source_to_target",
}
_PERCENT: Final = (0.0, 100.0)
_MOST_TIMES, _MOST_IMAGES, _MOST_CONFUSIONS = 6, 6, 8
# Fewer shades of grey keep the page small.
_SHADE: Final = 8


def cosine(value: float) -> str:
    """Write a cosine without its 0.

    Example:
        >>> cosine(0.254), cosine(-0.5) == "\\N{MINUS SIGN}.50"
        ('.25', True)
    """
    return f"{value:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")


def _panel(caption: str, name: str, strips: Sequence[StripFile]) -> dict[str, Any]:
    """One picture, or one over time with None where there was no such picture yet."""
    kind = "photo" if name == "image" else "grey" if name.startswith("confidence") else "map"
    frames = []
    for strip in strips:
        pixels = strip.pictures.get(name)
        if pixels is not None and kind == "grey":
            pixels = (pixels // _SHADE * _SHADE).astype(np.uint8)
        frames.append(None if pixels is None else data_uri(pixels, photograph=kind == "photo"))
    return {"caption": caption, "frames": frames, "kind": kind}


def images(comparison: Comparison) -> list[dict[str, Any]]:
    """Lay the images out: the image, the truth, every prediction, then pseudo labels.

    A single run shows what changes at up to six moments, evenly spaced and always the last; one
    that adapts from the end of its warm-up on.
    """
    runs, blocks = comparison.runs, []
    single = len(runs) == 1
    drawn = next((run for run in (subject(comparison), *runs) if run.strips), runs[0])
    for strips in drawn.strips[: None if single else _MOST_IMAGES]:
        last = strips[-1]
        still = [name for name in ("image", "ground truth") if name in last.pictures]
        panels = [_panel(name, name, [last]) for name in still]
        times = [last]
        if single:
            shown = list(strips)
            warm = [strip for strip in strips if strip.phase == "source"]
            if warm and last.phase != "source":
                panels.append(_panel("source only", "prediction", warm[-1:]))
                shown = shown[len(warm) - 1 :]
            count = len(shown) - 1
            times = [shown[at] for at in (*spread_indices(count, _MOST_TIMES - 1), count)]
            name = "adapted" if last.phase.startswith("round") else "prediction"
            panels.append(_panel(name, "prediction", times))
        for run in () if single else runs:
            panels += [
                _panel(run.caption, "prediction", same[-1:])
                for same in run.strips
                if (same[0].domain, same[0].stem) == (last.domain, last.stem)
            ]
        for name in last.pictures:
            if name not in (*still, "prediction") and (single or "confidence" not in name):
                panels.append(_panel(name, name, times))
        height, width = next(iter(last.pictures.values())).shape[:2]
        blocks.append(
            {
                "title": f"{last.domain} image {last.index}",
                "stem": last.stem,
                "panels": panels,
                "times": [strip.iteration for strip in times],
                "size": f"{width} / {height}",
            }
        )
    return blocks


def class_rows(main: Score, base: Score | None, rows: Sequence[Score]) -> list[dict[str, Any]]:
    """Per class a line of dots, one for every score by class, and the change."""
    changes = changes_of(main, base) if base is not None else {}
    shown = [row for row in rows if row is not main and row.iou] + [main]
    return [
        {
            "name": name,
            "dots": [
                (r.caption, r.iou[name], r.colour) for r in shown if r.iou.get(name) is not None
            ],
            "value": value,
            "change": changes.get(name),
        }
        for name, value in main.iou.items()
    ]


def all_numbers(comparison: Comparison) -> dict[str, Any] | None:
    """Every number per class: of the runs, or of one run beside those it is compared with."""
    main = subject(comparison)
    if main.table is None:
        return None
    columns = [
        {**run.table["rows"][0], "name": run.caption} for run in comparison.runs if run.table
    ]
    if len(comparison.runs) == 1:
        columns = main.table["rows"]
    return {
        "header": main.table["header"],
        "columns": columns,
        "groups": [(part, list(main.table["rows"][0][part])) for part in ("means", "iou")],
    }


def confusion(run: RecordedRun, base: RecordedRun | None) -> dict[str, Any] | None:
    """Shares of the pixels of every true class by predicted class, and the largest errors.

    Args:
        run: whose; without a matrix there is nothing to show.
        base: whose share is told beside each of the largest errors.
    """

    def shares(each: RecordedRun | None) -> Any:
        counts = np.array(each.confusion if each and each.confusion else 0, dtype=np.float64)
        return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1) if counts.ndim else None

    part, other, names = shares(run), shares(base), list(run.classes or run.iou)
    if part is None or len(part) != len(names):
        return None
    seen = [label for label in range(len(names)) if part[label].any() or part[:, label].any()]
    wrong = sorted(
        ((row, column) for row in seen for column in seen if row != column and part[row, column]),
        key=lambda cell: -part[cell],
    )
    comparable = other is not None and other.shape == part.shape
    return {
        "names": [names[label] for label in seen],
        "rows": [(names[row], part[row, seen].tolist()) for row in seen if part[row].any()],
        "errors": [
            (names[cell[0]], names[cell[1]], part[cell], other[cell] if comparable else None)
            for cell in wrong[:_MOST_CONFUSIONS]
        ],
        "base": base.caption if base is not None and comparable else "",
    }


def curves(comparison: Comparison, rows: Sequence[Score]) -> dict[str, list[Markup]]:
    """Draw scores, losses with and without their weights, and the course of the runs."""
    main, runs = subject(comparison), comparison.runs
    colours = {row.caption: row.colour for row in rows}
    marks = main.boundaries if len(runs) == 1 else []

    def chart(
        title: str,
        lines: Mapping[str, tuple[str, Series]],
        y_label: str,
        y_range: tuple[float, float] | None = None,
    ) -> list[Markup]:
        if not any(points for _, points in lines.values()):
            return []
        return [line_chart(title, lines, y_label=y_label, y_range=y_range, marks=marks)]

    def column(name: str, scale: float = 1.0) -> dict[str, tuple[str, Series]]:
        return {run.caption: (colours[run.caption], run.column(name, scale)) for run in runs}

    evaluations = column("miou_percent") | {
        f"{run.caption}, moving average": ("var(--teal)", run.column("teacher_miou_percent"))
        for run in runs
    }
    several = max(len(points) for _, points in evaluations.values()) > 1
    palette = itertools.cycle(("var(--blue)", *OTHERS, "var(--green)", "var(--grey)"))
    weighted = {_title(t): (next(palette), main.column(LOSS + t)) for t in main.columns(LOSS)}
    losses = []
    if len(weighted) > 1:
        losses = chart("What is minimised", weighted, "nats, every term with its weight")
    for term in dict.fromkeys(term for run in runs for term in run.columns(LOSS)):
        weights = {
            run.caption: _weight(run, term) for run in runs if LOSS + term in run.columns("")
        }
        lines = {
            run.caption: (colours[run.caption], run.column(LOSS + term, 1 / weights[run.caption]))
            for run in runs
            if run.caption in weights
        }
        told = " and ".join(f"{weight:g}" for weight in sorted({*weights.values()}))
        unit = "nats" if told == "1" else f"nats, before its weight of {told}"
        losses += chart(_title(term), lines, unit)
    return {
        "scores": chart("Evaluations", evaluations, "mean IoU, %") if several else [],
        "losses": losses,
        "course": [
            *chart(
                "Coverage of pseudo labels", column("coverage", 100), "% of target pixels", _PERCENT
            ),
            *chart("Learning rate of the backbone", column("learning_rate"), "per step"),
            *chart("Speed", column("iterations_per_second"), "iterations per second"),
            *chart("Waiting for data", column("data_wait_share", 100), "% of the time"),
        ],
    }


def _title(term: str) -> str:
    return _TITLES.get(term, term.replace("_", " ").capitalize())


def _weight(run: RecordedRun, term: str) -> float:
    """What a term is multiplied with, where that is known; else 1."""
    if run.settings["method"] != "bicl" or term not in _WEIGHTS:
        return 1.0
    return float(run.settings[_WEIGHTS[term]]) or 1.0


def class_shares(run: RecordedRun) -> list[dict[str, Any]]:
    """Per class its share of the predictions on the target over time."""
    known = {name.replace(" ", "_"): name for name in run.classes or ()}
    rows = []
    for column in run.columns(SHARE):
        points = run.column(SHARE + column, 100)
        name = known.get(column, column.replace("_", " "))
        colour = hexadecimal((run.classes or {}).get(name, UNLABELLED))
        rows.append({"name": name, "colour": colour, "chart": sparkline(points),
                     "first": points[0][1], "last": points[-1][1]})  # fmt: skip
    return [row for row in rows if row["first"] or row["last"]]


def feature_space(run: RecordedRun) -> dict[str, Any] | None:
    """Where the prototypes of both domains lie at the first and the last moment of a run."""
    if not run.moments:
        return None
    ends = [run.moments[0], run.moments[-1]] if len(run.moments) > 1 else list(run.moments)
    titles = [f"After iteration {iteration}" for iteration, _ in ends]
    moments = [moment for _, moment in ends]
    names = list(run.classes or {str(n): UNLABELLED for n in range(len(moments[0].source))})
    colours = [hexadecimal(colour) for colour in (run.classes or {}).values()]
    pairs = list(zip(names, colours or ["var(--blue)"] * len(names), strict=True))
    charts, kept = planes(titles, moments, pairs)
    matrices = []
    for title, moment in zip(titles, moments, strict=True):
        labels, rows = cosine_rows(moment)
        shown = [names[label] for label in labels]
        matrices.append((title, shown, list(zip(shown, rows, strict=True))))
    measured = [(title, alignment(moment)) for title, moment in zip(titles, moments, strict=True)]
    return {
        "planes": charts,
        "kept": kept,
        "matrices": matrices,
        "rows": [(title, found) for title, found in measured if found is not None],
        "moved": any(moment.calibrated is not None for moment in moments),
    }


def settings(comparison: Comparison) -> dict[str, Any]:
    """Settings that differ from the nearest preset or between runs, then all of them."""
    main, runs = subject(comparison), comparison.runs
    differing = {}
    for name in sorted({*main.usual, *(name for run in runs for name in run.settings)}):
        values: dict[str, list[str]] = {}
        for run in runs:
            values.setdefault(_word(run.settings.get(name)), []).append(run.caption)
        usual = _word(main.usual.get(name))
        if [*values] != [usual] and (len(values) > 1 or not belongs_to_one_run(name)):
            differing[name] = (usual, values)
    return {
        "preset": main.preset,
        "differing": differing,
        "all": [(name, _word(value)) for name, value in sorted(main.settings.items())],
    }


def _word(value: Any) -> str:
    return "\N{EN DASH}" if value is None else str(value)


def origins(comparison: Comparison) -> list[tuple[list[tuple[str, Any]], Mapping[str, Any]]]:
    """Commands of the runs, those that follow each other on one machine and code together."""
    starts = [(run.caption, start) for run in comparison.runs for start in run.starts]

    def where(pair: tuple[str, Any]) -> Any:
        return [pair[1].get(name) for name in ("versions", "machine", "commit")]

    groups = [list(group) for _, group in itertools.groupby(starts, key=where)]
    return [(group, group[-1][1]) for group in groups]


def render(comparison: Comparison) -> str:
    """Compose the page.

    Args:
        comparison: its runs.

    Returns:
        str: an HTML document that refers to nothing outside itself.
    """
    run, rows = subject(comparison), scores(comparison)
    main, base = pair(comparison, rows)
    beside = next((each for each in comparison.runs if base and each.caption == base.caption), None)
    earlier = before(run, base)
    by_class = [*rows, earlier] if earlier is not None and earlier is not base else rows
    classes = next((each.classes for each in (run, *comparison.runs) if each.classes), {})
    legend = [(name, hexadecimal(colour)) for name, colour in classes.items()]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "cosine": cosine}
    return environment.get_template("page.html.jinja").render(
        comparison=comparison,
        run=run,
        headline=headline(main.caption if comparison.title else f"Run {run.caption}", main, base),
        explanation=explanation(main, base, rows),
        rows=rows,
        base=base,
        images=images(comparison),
        legend=[*legend, ("no label", hexadecimal(UNLABELLED))] if legend else [],
        by_class=[row for row in by_class if row.iou],
        earlier=earlier,
        classes=class_rows(main, earlier, by_class),
        numbers=all_numbers(comparison),
        confusion=confusion(run, beside),
        curves=curves(comparison, rows),
        shares=class_shares(run),
        space=feature_space(run),
        settings=settings(comparison),
        origins=origins(comparison),
    )
