"""Related methods side by side: one table over the targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from reference.experiments.row_names import CONTROL, LABELS

Summary = Mapping[str, Any]
PICTURE: Final = "methods.svg"
TITLE: Final = "Gain over the continued control, points of mean IoU"


class Result(NamedTuple):
    """Mean IoU of one row on one target, seed by seed, and its gains over the control."""

    scores: list[float]
    gains: list[float]


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
        return ["", "", ""]
    spread = statistics.stdev(result.scores) if len(result.scores) > 1 else 0.0
    mean = f"{statistics.mean(result.scores):.1f} ({spread:.1f})"
    if row == CONTROL or not result.gains:
        return [mean, "", ""]
    gain = f"{statistics.mean(result.gains):+.1f}"
    if verdict(result.gains) == "helps":
        gain = f"**{gain}**"
    return [mean, gain, " ".join(f"{gain:+.1f}" for gain in result.gains)]


def table(targets: Mapping[str, Summary | None]) -> str:
    """Lay out every row with mean, spread and gain, target by target.

    Args:
        targets: what a column calls a target -> its numbers.
    """
    found = {name: results_of(summary) for name, summary in targets.items() if summary is not None}
    header = ["row"]
    for name in found:
        header += [f"{name} (sd)", "gain", "each seed"]
    lines = [header, ["---", *("---:" for _ in header[1:])]]
    for row in LABELS:
        if any(row in results for results in found.values()):
            cells = [cell for results in found.values() for cell in _cells(results.get(row), row)]
            lines.append([label_of(row), *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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
    parts.append(
        "Mean IoU in percent, in brackets its standard deviation over the seeds, then the gain "
        "over the continued control, its mean and every seed; bold where every seed gains."
    )
    return "\n\n".join([*parts, f"![{TITLE}](pictures/{PICTURE})", table(stored)])
