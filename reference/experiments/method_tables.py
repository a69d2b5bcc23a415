"""Related methods side by side: one table over the targets, and the picture of their gains."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from matplotlib.figure import Figure

from reference.experiments.row_names import CONTROL, LABELS, METHOD
from reference.pictures.charts import INK, as_svg, drawing

Summary = Mapping[str, Any]
PICTURE: Final = "methods.svg"
TITLE: Final = "Gain over the continued control, points of mean IoU"
GAIN, LOSS, REST = "#2f6db5", "#b8661b", "#8a8a84"


class Result(NamedTuple):
    """Mean IoU of one row on one target, seed by seed, and its gains over the control."""

    scores: list[float]
    gains: list[float]
    seconds: float


def results_of(summary: Summary | None) -> dict[str, Result]:
    """Every row of a target in the order of tables; empty where nothing is stored."""
    if summary is None:
        return {}
    rows: dict[str, dict[int, Mapping[str, Any]]] = {}
    for record in summary["rows"]:
        rows.setdefault(record["row"], {})[record["seed"]] = record
    control = rows.get(CONTROL, {})
    return {
        name: Result(
            [rows[name][seed]["miou"] for seed in sorted(rows[name])],
            [
                rows[name][seed]["miou"] - control[seed]["miou"]
                for seed in sorted({*rows[name]} & {*control})
            ],
            statistics.mean(record["seconds"] for record in rows[name].values()),
        )
        for name in LABELS
        if name in rows
    }


def label_of(row: str) -> str:
    """What the table calls a row."""
    return "BiCL, settings of this recipe" if row == "bicl" else LABELS[row]


def verdict(gains: Sequence[float]) -> str:
    """Whether every seed agrees."""
    if min(gains) > 0:
        return "helps"
    return "harms" if max(gains) < 0 else "mixed"


def _cells(result: Result | None, row: str) -> list[str]:
    if result is None:
        return ["", "", "", "", ""]
    spread = statistics.stdev(result.scores) if len(result.scores) > 1 else 0.0
    mean = f"{statistics.mean(result.scores):.1f} ({spread:.1f})"
    seconds = f"{result.seconds:.0f}"
    if row == CONTROL or not result.gains:
        return [mean, "", "", "", seconds]
    each = " ".join(f"{gain:+.1f}" for gain in result.gains)
    return [mean, f"{statistics.mean(result.gains):+.1f}", each, verdict(result.gains), seconds]


def table(targets: Mapping[str, Summary | None]) -> str:
    """Lay out every row with mean, spread, gain and verdict, target by target.

    Args:
        targets: what a column calls a target -> its numbers.
    """
    found = {name: results_of(summary) for name, summary in targets.items()}
    header = ["row"]
    for name in targets:
        header += [f"{name} (sd)", "gain", "each seed", "in every seed", "s"]
    lines = [header, ["---", *("---:" for _ in header[1:])]]
    for row in LABELS:
        if any(row in results for results in found.values()):
            cells = [_cells(results.get(row), row) for results in found.values()]
            lines.append([label_of(row), *(cell for group in cells for cell in group)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def picture(targets: Mapping[str, Summary | None]) -> str:
    """Draw the gain of every method: its mean, and every seed."""
    found = {name: results_of(summary) for name, summary in targets.items()}
    shown = [
        row
        for row in LABELS
        if (row.startswith(METHOD) or row in ("self_training", "bicl"))
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
                colour = {"helps": GAIN, "harms": LOSS}.get(verdict(gains), REST)
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
        figure.supxlabel(f"{TITLE}; dot: mean, strokes: seeds", fontsize=9, color="#44443f")
        return as_svg(figure, TITLE)


def render(targets: Mapping[str, Summary | None]) -> str:
    """Compose the generated part: where the numbers are from, picture and table."""
    stored = {name: summary for name, summary in targets.items() if summary is not None}
    if not stored:
        return "No numbers are stored yet."
    parts = []
    for name, summary in stored.items():
        images, (version, *_) = summary["images"], summary["versions"]
        machines = "; or ".join(str(m["processor"]) for m in summary["machines"])
        parts.append(
            f"{name}: `{summary['command']}`; {images['source']} source, {images['target']} "
            f"unlabelled target and {images['test']} test images (split {summary['split']}); torch "
            f"{version['torch']}, {machines}, one thread per run."
        )
    return "\n\n".join([*parts, f"![{TITLE}](pictures/{PICTURE})", table(stored)])
