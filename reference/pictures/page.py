"""The page of one run or of several beside each other: one HTML file that needs nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
from markupsafe import Markup

from reference.pictures.paint import UNLABELLED, ByteArray, data_uri, hexadecimal, spread_indices
from reference.pictures.prototypes import alignment, cosine_rows, planes
from reference.pictures.recorded_run import OWN, Comparison, RecordedRun
from reference.pictures.strip_files import StripFile
from reference.pictures.svg import Series, line_chart, sparkline
from reference.run.report import LOSS, SHARE

_COLOURS: Final = {"source": "var(--grey)", "control": "var(--dark)", "oracle": "var(--green)"}
_TRIED: Final = ("var(--blue)", "var(--orange)", "var(--violet)", "var(--teal)")
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
_MOST_TIMES, _MOST_IMAGES, _MOST_CONFUSIONS = 6, 6, 8
# Fewer shades of grey keep the page small.
_SHADE: Final = 8


def signed(value: float, digits: int = 1) -> str:
    """Write a difference with its sign, the minus as wide as the plus.

    Example:
        >>> signed(12.34), signed(-3.0, 0) == "\\N{MINUS SIGN}3"
        ('+12.3', True)
    """
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def cosine(value: float) -> str:
    """Write a cosine without its 0.

    Example:
        >>> cosine(0.254), cosine(-0.5) == "\\N{MINUS SIGN}.50"
        ('.25', True)
    """
    return f"{value:.2f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")


def _points(value: float) -> str:
    return f"{abs(value):.1f} point{'' if f'{abs(value):.1f}' == '1.0' else 's'}"


@dataclass(frozen=True)
class Score:
    """A score with what it is compared by.

    Args:
        caption: whose it is.
        role: as that of a run; "best" for one that was chosen on the labels it is scored on.
        miou: percent; None before the first evaluation.
        iteration: of the evaluation.
        progress: how far the run is, where it has not reached its end.
        iou: by class, percent; empty where only the mean is known.
        colour: in CSS.
    """

    caption: str
    role: str
    miou: float | None
    iteration: int
    progress: str
    iou: Mapping[str, float | None]
    colour: str


def subject(comparison: Comparison) -> RecordedRun:
    """The run that a page is about: the first with the role "method", else the last."""
    tried = [run for run in comparison.runs if run.role == "method"]
    return tried[0] if tried else comparison.runs[-1]


def scores(comparison: Comparison) -> list[Score]:
    """List what is compared: every run, or a single run beside its own warm-up and its best."""
    runs, rows, colours = comparison.runs, [], itertools.cycle(_TRIED)
    for run in runs:
        own = run.evaluations
        colour = _COLOURS.get(run.role) or next(colours)
        at = own[-1]["iteration"] if own else run.done
        left = f"{run.done} of {run.planned} iterations" if run.done < run.planned else ""
        row = Score(run.caption, run.role, run.score, at, left, run.iou, colour)
        if len(runs) > 1 or not own:
            rows.append(row)
            continue
        before = [each for each in own if each["phase"] == "source"]
        if before and own[-1]["phase"] != "source":
            miou, at = before[-1]["miou_percent"], before[-1]["iteration"]
            rows.append(Score("source only", "source", miou, at, "", {}, _COLOURS["source"]))
        rows.append(row)
        if (teacher := own[-1].get("teacher_miou_percent")) is not None:
            name = f"{run.caption}, moving average"
            rows.append(Score(name, "teacher", teacher, row.iteration, "", {}, "var(--teal)"))
        best = max(own, key=lambda each: float(each["miou_percent"]))
        if best is not own[-1]:
            name, miou = "best, oracle-selected", best["miou_percent"]
            rows.append(Score(name, "best", miou, best["iteration"], "", {}, "var(--orange)"))
    return rows


def pair(comparison: Comparison, rows: Sequence[Score]) -> tuple[Score, Score | None]:
    """The score that a page is about, and what it is held against: the control, else source only.

    Args:
        comparison: of the page.
        rows: of `scores`.
    """
    main = next(row for row in rows if row.caption == subject(comparison).caption)
    against = [row for role in ("control", "source") for row in rows if row.role == role]
    return main, next((row for row in against if row is not main and row.miou is not None), None)


def headline(main: Score, base: Score | None) -> str:
    """Say in one sentence what was reached, over what it is a gain, and how far the run is."""
    so_far = f" after {main.progress}" if main.progress else ""
    if main.miou is None:
        return f"{main.caption}: not evaluated yet{so_far}."
    if base is None or base.miou is None:
        return f"{main.caption}: mean IoU {main.miou:.1f}%{so_far}."
    value = main.miou - base.miou
    other = "the control" if base.role == "control" else base.caption
    means = f"mean IoU {main.miou:.1f}% against {base.miou:.1f}%{so_far}"
    if value > 0.05:
        return f"{main.caption} gains {_points(value)} over {other}: {means}."
    worse = "no better than" if value > -0.05 else f"{_points(value)} worse than"
    return f"{main.caption} does not help here: {worse} {other}, {means}."


def explanation(main: Score, base: Score | None, rows: Sequence[Score]) -> list[str]:
    """Put the other comparisons into sentences, the unfavourable ones included."""
    sentences = []
    if base is not None and base.role == "control":
        sentences.append(
            "The control is the source-only network trained on the source for as many further "
            "steps as the adaptation takes, so its score says what more training alone would bring."
        )
    if base is not None and (changes := _changes(main, base)):
        order = sorted(changes, key=lambda name: -changes[name])
        best = [f"{n} ({signed(changes[n], 0)})" for n in order[:3] if changes[n] >= 1]
        worst = [f"{n} ({signed(changes[n], 0)})" for n in order[:-4:-1] if changes[n] <= -1]
        if best:
            sentences.append(f"{main.caption} gains most on {_listed(best)}.")
        sentences.append(
            f"It loses on {_listed(worst)}." if worst else "No class loses a point or more."
        )
    oracle = next((row.miou for row in rows if row.role == "oracle"), None)
    if oracle is not None and main.role != "oracle" and main.miou is not None:
        sentence = f"The same network trained on the target's own labels reaches {oracle:.1f}%"
        if base is not None and base.miou is not None and base.miou < main.miou < oracle:
            closed = (main.miou - base.miou) / (oracle - base.miou)
            sentence += f"; adaptation closes {closed:.0%} of the way to it"
        sentences.append(sentence + ".")
    if any(row.role == "best" for row in rows):
        sentences.append(
            "The last checkpoint is the result. The best one was chosen with the labels that it is "
            "scored on, so its score is too high to compare with others."
        )
    return sentences


def _changes(main: Score, base: Score) -> dict[str, float]:
    pairs = {name: (value, base.iou.get(name)) for name, value in main.iou.items()}
    return {n: a - b for n, (a, b) in pairs.items() if a is not None and b is not None}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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

    A single run shows what changes at up to six moments, evenly spaced and always the last.
    """
    main, blocks = subject(comparison), []
    single = len(comparison.runs) == 1
    for strips in main.strips[: None if single else _MOST_IMAGES]:
        last = strips[-1]
        still = [name for name in ("image", "ground truth") if name in last.pictures]
        panels = [_panel(name, name, [last]) for name in still]
        times = [last]
        if single:
            count = len(strips) - 1
            times = [strips[at] for at in (*spread_indices(count, _MOST_TIMES - 1), count)]
            warm = [strip for strip in strips if strip.phase == "source"]
            if warm and last.phase != "source":
                panels.append(_panel("source only", "prediction", warm[-1:]))
            name = "adapted" if last.phase.startswith("round") else "prediction"
            panels.append(_panel(name, "prediction", times))
        for run in () if single else comparison.runs:
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
    changes = _changes(main, base) if base is not None else {}
    return [
        {
            "name": name,
            "dots": [(row.caption, row.iou[name], row.colour) for row in rows
                     if row.iou.get(name) is not None],
            "value": value,
            "change": changes.get(name),
        }
        for name, value in main.iou.items()
    ]  # fmt: skip


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
    palette = itertools.cycle((*_TRIED, "var(--green)", "var(--grey)"))
    weighted = {_title(t): (next(palette), main.column(LOSS + t)) for t in main.columns(LOSS)}
    losses = chart("What is minimised", weighted, "nats, every term with its weight")
    for term in dict.fromkeys(term for run in runs for term in run.columns(LOSS)):
        weight = _weight(main, term)
        unit = "nats" if weight is None else f"nats, before its weight of {weight:g}"
        losses += chart(_title(term), column(LOSS + term, 1 / (weight or 1)), unit)
    share = {"y_label": "% of target pixels", "y_range": (0.0, 100.0)}
    return {
        "scores": chart("Evaluations", evaluations, "mean IoU, %") if several else [],
        "losses": losses,
        "course": [
            *chart("Coverage of pseudo labels", column("coverage", 100), **share),
            *chart("Learning rate of the backbone", column("learning_rate"), "per step"),
            *chart("Speed", column("iterations_per_second"), "iterations per second"),
            *chart("Waiting for data", column("data_wait_share", 100), "% of the time"),
        ],
    }


def _title(term: str) -> str:
    return _TITLES.get(term, term.replace("_", " ").capitalize())


def _weight(run: RecordedRun, term: str) -> float | None:
    """What a term is multiplied with, where that is known and not 1."""
    if run.settings.get("method", "bicl") != "bicl" or term not in _WEIGHTS:
        return None
    return float(run.settings.get(_WEIGHTS[term], 0)) or None


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
    rows = [(title, alignment(moment)) for title, moment in zip(titles, moments, strict=True)]
    return {
        "planes": charts,
        "kept": kept,
        "matrices": matrices,
        "rows": [(title, found) for title, found in rows if found is not None],
        "moved": any(moment.calibrated is not None for moment in moments),
    }


def settings(comparison: Comparison) -> dict[str, Any]:
    """Settings that differ from the nearest preset or between runs, then all of them."""
    main, runs = subject(comparison), comparison.runs
    differing = {}
    for name in sorted({*main.usual, *(name for run in runs for name in run.settings)}):
        values: dict[str, list[str]] = {}
        for run in runs:
            values.setdefault(str(run.settings.get(name)), []).append(run.caption)
        usual = str(main.usual.get(name))
        if [*values] != [usual] and (len(values) > 1 or not name.startswith(OWN)):
            differing[name] = (usual, values)
    return {
        "preset": main.preset,
        "differing": differing,
        "all": sorted(main.settings.items()),
    }


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
    main_run, rows = subject(comparison), scores(comparison)
    main, base = pair(comparison, rows)
    beside = next((run for run in comparison.runs if base and run.caption == base.caption), None)
    legend = [(name, hexadecimal(colour)) for name, colour in (main_run.classes or {}).items()]
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
        run=main_run,
        headline=headline(main, base),
        explanation=explanation(main, base, rows),
        rows=rows,
        base=base,
        images=images(comparison),
        legend=[*legend, ("no label", hexadecimal(UNLABELLED))] if legend else [],
        classes=class_rows(main, base, rows),
        numbers=all_numbers(comparison),
        confusion=confusion(main_run, beside),
        curves=curves(comparison, rows),
        shares=class_shares(main_run),
        space=feature_space(main_run),
        settings=settings(comparison),
        origins=origins(comparison),
    )
