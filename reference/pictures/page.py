"""The page of one run or of several beside each other: one HTML file that needs nothing else."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from reference.data.image_set import spread_indices
from reference.pictures import scores
from reference.pictures.prototypes import alignment, cosine_rows, planes
from reference.pictures.recorded_run import Comparison, RecordedRun, is_own, nearest_preset
from reference.pictures.strips import UNLABELLED, StripFile, data_uri, hexadecimal
from reference.pictures.svg import TEMPLATES, Series, line_chart, sparkline
from reference.run.report import LOSS, SHARE

# Loss term -> its title, and the setting that BiCL multiplies it with.
_TERMS: Final = {
    "source_cross_entropy": ("Cross-entropy on source labels", ""),
    "static_cross_entropy": ("Cross-entropy on static labels", "static_weight"),
    "source_entropy": ("Entropy on the source", "source_entropy_weight"),
    "entropy": ("Entropy on the target", "entropy_weight"),
    "target_to_source": ("Contrast, target to source", "contrast.target_to_source"),
    "source_to_target": ("Contrast, source to target", "contrast.source_to_target"),
}
_MOST_TIMES, _MOST_IMAGES, _MOST_CONFUSIONS = 6, 6, 8
_Lines = Mapping[str, tuple[str, Series]]
# Fewer shades of grey keep the page small.
_SHADE: Final = 8


def cosine(value: float) -> str:
    """Write a cosine without its 0, such as .25."""
    return f"{value:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")


def _panel(caption: str, name: str, strips: Sequence[StripFile]) -> dict[str, Any]:
    """One picture, or one over time with None where there was no such picture yet."""
    kind = "photo" if name == "image" else "grey" if name.startswith("confidence") else "map"
    frames: list[str | None] = []
    for pixels in (strip.pictures.get(name) for strip in strips):
        if pixels is not None and kind == "grey":
            pixels = pixels // _SHADE * _SHADE
        frames.append(None if pixels is None else data_uri(pixels, photograph=kind == "photo"))
    return {"caption": caption, "frames": frames, "kind": kind}


def images(comparison: Comparison) -> list[dict[str, Any]]:
    """Lay the images out: the image, the truth, every prediction, then pseudo labels.

    A single run shows what changes at up to six moments, evenly spaced and always the last; one
    that adapts from the end of its warm-up on.
    """
    runs, blocks = comparison.runs, []
    single = len(runs) == 1
    drawn = next((run for run in (scores.subject(comparison), *runs) if run.strips), runs[0])
    for strips in drawn.strips[: None if single else _MOST_IMAGES]:
        last = strips[-1]
        still = [name for name in ("image", "ground truth") if name in last.pictures]
        panels = [_panel(name, name, [last]) for name in still]
        times = [last]
        if single:
            warm = [strip for strip in strips if strip.phase == "source"]
            if warm and last.phase != "source":
                panels.append(_panel("source only", "prediction", warm[-1:]))
                strips = strips[len(warm) - 1 :]
            count = len(strips) - 1
            times = [strips[at] for at in (*spread_indices(count, _MOST_TIMES - 1), count)]
            name = "adapted" if last.phase.startswith("round") else "prediction"
            panels.append(_panel(name, "prediction", times))
        else:
            panels += [
                _panel(run.caption, "prediction", same[-1:])
                for run in runs
                for same in run.strips
                if (same[0].domain, same[0].stem) == (last.domain, last.stem)
            ]
        for name in last.pictures:
            if name not in (*still, "prediction") and (single or "confidence" not in name):
                panels.append(_panel(name, name, times))
        height, width, _ = last.pictures["prediction"].shape
        at, size = [each.iteration for each in times], f"{width} / {height}"
        blocks.append({"strip": last, "panels": panels, "times": at, "size": size})
    return blocks


def all_numbers(comparison: Comparison) -> dict[str, Any] | None:
    """Every number per class: of the runs, or of one run beside those it is compared with."""
    runs, table = comparison.runs, scores.subject(comparison).table
    if table is None:
        return None
    columns = table["rows"]
    groups = [(part, list(columns[0][part])) for part in ("means", "iou")]
    if len(runs) > 1:
        columns = [{**run.table["rows"][0], "name": run.caption} for run in runs if run.table]
    return {"header": table["header"], "columns": columns, "groups": groups}


def confusion(run: RecordedRun, base: RecordedRun | None) -> dict[str, Any] | None:
    """Shares of the pixels of every true class by predicted class, and the largest errors.

    The share of `base` is told beside each of these. Without a matrix there is nothing to show.
    """

    def shares(each: RecordedRun | None) -> Any:
        counts = np.array(each.confusion if each and each.confusion else 0, dtype=np.float64)
        return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1) if counts.ndim else None

    part, other, names = shares(run), shares(base), list(run.classes or run.iou)
    if part is None or len(part) != len(names):
        return None
    seen = [label for label in range(len(names)) if part[label].any() or part[:, label].any()]
    cells = [(a, b) for a in seen for b in seen if a != b and part[a, b] >= 0.005]
    compared = other is not None and other.shape == part.shape
    return {
        "names": [names[label] for label in seen],
        "rows": [(names[row], part[row, seen].tolist()) for row in seen if part[row].any()],
        "errors": [
            (names[a], names[b], part[a, b], other[a, b] if compared else None)
            for a, b in sorted(cells, key=lambda cell: -part[cell])[:_MOST_CONFUSIONS]
        ],
        "base": base.caption if base is not None and compared else "",
    }


def curves(comparison: Comparison, rows: Sequence[scores.Score]) -> dict[str, list[Markup]]:
    """Draw scores, losses with and without their weights, and the course of the runs."""
    main, runs = scores.subject(comparison), comparison.runs
    colours = {row.caption: row.colour for row in rows}
    marks = main.boundaries if len(runs) == 1 else []

    def chart(title: str, unit: str, lines: _Lines, span: Any = None) -> list[Markup]:
        if not any(points for _, points in lines.values()):
            return []
        return [line_chart(title, lines, y_label=unit, y_range=span, marks=marks)]

    def column(name: str, scale: float = 1.0) -> _Lines:
        return {
            run.caption: (colours[run.caption], run.column(name, scale / _weight(run, name)))
            for run in runs
        }

    evaluations = {**column("miou_percent")} | {
        f"{run.caption}, moving average": ("var(--teal)", run.column("teacher_miou_percent"))
        for run in runs
    }
    several = max(len(points) for _, points in evaluations.values()) > 1
    palette = itertools.cycle(("var(--blue)", *scores.OTHERS, "var(--green)", "var(--grey)"))
    weighted = {_title(t): (next(palette), main.column(LOSS + t)) for t in main.columns(LOSS)}
    losses = []
    if len(weighted) > 1:
        losses = chart("What is minimised", "nats, every term with its weight", weighted)
    for term in dict.fromkeys(term for run in runs for term in run.columns(LOSS)):
        weights = {_weight(run, LOSS + term) for run in runs if run.column(LOSS + term)}
        told = " and ".join(f"{weight:g}" for weight in sorted(weights))
        unit = "nats" if told == "1" else f"nats, before its weight of {told}"
        losses += chart(_title(term), unit, column(LOSS + term))
    coverage = column("coverage", 100)
    return {
        "scores": chart("Evaluations", "mean IoU, %", evaluations) if several else [],
        "losses": losses,
        "course": [
            *chart("Coverage of pseudo labels", "% of target pixels", coverage, (0.0, 100.0)),
            *chart("Learning rate of the backbone", "per step", column("learning_rate")),
            *chart("Speed", "iterations per second", column("iterations_per_second")),
            *chart("Waiting for data", "% of the time", column("data_wait_share", 100)),
        ],
    }


def _title(term: str) -> str:
    return _TERMS[term][0] if term in _TERMS else term.replace("_", " ").capitalize()


def _weight(run: RecordedRun, column: str) -> float:
    """What the term in a column is multiplied with, where that is known; else 1."""
    _, setting = _TERMS.get(column.removeprefix(LOSS), ("", ""))
    if run.settings["method"] != "bicl" or not setting:
        return 1.0
    return float(run.settings[f"adaptation.{setting}"]) or 1.0


def class_shares(run: RecordedRun) -> list[dict[str, Any]]:
    """Per class its share of the predictions on the target over time."""
    rows, known = [], {name.replace(" ", "_"): name for name in run.classes}
    for column in run.columns(SHARE):
        points = run.column(SHARE + column, 100)
        name = known.get(column, column.replace("_", " "))
        colour = hexadecimal(run.classes.get(name, UNLABELLED))
        ends = {"first": points[0][1], "last": points[-1][1]}
        rows.append({"name": name, "colour": colour, "chart": sparkline(points), **ends})
    return [row for row in rows if row["first"] or row["last"]]


def feature_space(run: RecordedRun) -> dict[str, Any] | None:
    """Where the prototypes of both domains lie at the first and the last moment of a run."""
    if not run.moments:
        return None
    ends = run.moments[:: max(len(run.moments) - 1, 1)]
    iterations, moments = zip(*ends, strict=True)
    titles = [f"After iteration {iteration}" for iteration in iterations]
    pairs = [(name, hexadecimal(colour)) for name, colour in run.classes.items()]
    pairs = pairs or [(str(label), "var(--blue)") for label in range(len(moments[0].source))]
    charts, kept = planes(titles, moments, pairs)
    matrices = []
    for title, (labels, rows) in zip(titles, map(cosine_rows, moments), strict=True):
        names = [pairs[label][0] for label in labels]
        matrices.append((title, names, list(zip(names, rows, strict=True))))
    measured = zip(titles, map(alignment, moments), strict=True)
    return {
        "planes": charts,
        "kept": kept,
        "matrices": matrices,
        "rows": [(title, measure) for title, measure in measured if measure is not None],
        "moved": any(moment.calibrated is not None for moment in moments),
    }


def settings(comparison: Comparison) -> dict[str, Any]:
    """Settings that differ from the nearest preset or between runs, then all of them."""
    main, runs = scores.subject(comparison), comparison.runs
    preset, usual = nearest_preset(main.settings)
    differing = {}
    for name in sorted({*usual, *(name for run in runs for name in run.settings)}):
        values: dict[str, list[str]] = {}
        for run in runs:
            values.setdefault(_word(run.settings.get(name)), []).append(run.caption)
        default = _word(usual.get(name))
        if [*values] != [default] and (len(values) > 1 or not is_own(name)):
            differing[name] = (default, values)
    every = [(name, _word(value)) for name, value in sorted(main.settings.items())]
    return {"preset": preset, "differing": differing, "all": every}


def _word(value: Any) -> str:
    return "\N{EN DASH}" if value is None else str(value)


def origins(comparison: Comparison) -> list[list[tuple[str, Any]]]:
    """Commands of the runs, those that follow each other on one machine and code together."""
    starts = [(run.caption, start) for run in comparison.runs for start in run.starts]

    def where(pair: tuple[str, Any]) -> Any:
        return [pair[1].get(name) for name in ("versions", "machine", "commit")]

    return [list(group) for _, group in itertools.groupby(starts, key=where)]


def render(comparison: Comparison) -> str:
    """Compose the page, an HTML document that refers to nothing outside itself."""
    run, rows = scores.subject(comparison), scores.scores(comparison)
    main, base = scores.pair(comparison, rows)
    beside = next((each for each in comparison.runs if base and each.caption == base.caption), None)
    earlier = scores.before(run, base)
    by_class = [*rows, earlier] if earlier is not None and earlier is not base else rows
    classes = next((each.classes for each in (run, *comparison.runs) if each.classes), {})
    legend = [*classes.items(), ("no label", UNLABELLED)] if classes else []
    name = main.caption if comparison.title else f"Run {run.caption}"
    TEMPLATES.filters |= {"signed": scores.signed, "cosine": cosine}
    return TEMPLATES.get_template("page.html.jinja").render(
        comparison=comparison, run=run, main=main, base=base, rows=rows, earlier=earlier,
        headline=scores.headline(name, main, base, run.images),
        explanation=scores.explanation(main, base, rows), images=images(comparison),
        legend=[(name, hexadecimal(colour)) for name, colour in legend],
        by_class=[row for row in by_class if row.iou],
        changes=scores.changes_of(main, earlier), numbers=all_numbers(comparison),
        confusion=confusion(run, beside), curves=curves(comparison, rows),
        shares=class_shares(run), space=feature_space(run), settings=settings(comparison),
        origins=origins(comparison),
    )  # fmt: skip
