"""Tables of docs/results.md, composed from the numbers in docs/results/*.json.

    python -m reference.experiments.tables

writes the generated parts of docs/results.md anew, between their markers; the text around them
is written by hand and stays. `python -m reference.ablate` stores the numbers and calls this.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from reference.experiments.rows import (
    CAPTIONS,
    CONTROL,
    INGREDIENTS,
    LABELS,
    SOURCE,
    UNAUGMENTED,
)
from reference.run.files import write_atomically

SECTIONS: Final = ("toy", "photographs", "varied", "sequence")
# What a column of the methods' table calls a target, and the file with its numbers.
METHODS: Final = {
    "drawn streets": "methods",
    "photographs": "methods-photographs",
    "drawn nights": "methods-night",
}
PICTURE: Final = "methods.svg"
TITLE: Final = "Gain over the continued control, points of mean IoU"
DOCS: Final = Path(__file__).resolve().parents[2] / "docs"

Record = Mapping[str, Any]
Summary = Mapping[str, Any]


class Result(NamedTuple):
    """Mean IoU of one row on one target, seed by seed, and its gains over the control."""

    scores: list[float]
    gains: list[float]


def summarise(
    records: Sequence[Record], *, target: str, command: str, split: str, images: Mapping[str, int]
) -> dict[str, Any]:
    """Cut records of runs down to the numbers that documents show.

    Args:
        records: as `runs.record_of` returns them, in the order of tables.
        target: name of the target domain.
        command: what made them.
        split: that scores were taken on.
        images: how many there are of "source", "target" and "test".
    """
    kept = (
        *("row", "seed", "miou", "iou", "share_ratio_max", "share_ratio_min", "coverage_end"),
        *("seconds", "warnings"),
    )
    of_machine = ("processor", "gpu", "cores", "system", "threads")
    return {
        "target": target,
        "command": command,
        "split": split,
        "images": dict(images),
        "versions": _distinct(record["versions"] for record in records),
        "machines": _distinct(
            {name: r["machine"][name] for name in of_machine if r["machine"].get(name)}
            for r in records
        ),
        "code": _distinct(record["commit"] for record in records),
        "rows": [{name: record[name] for name in kept} for record in records],
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
    return seen


def results_of(summary: Summary | None) -> dict[str, Result]:
    """Every row of a target in the order of tables; empty where nothing is stored."""
    rows = _by_row(summary) if summary else {}
    return {
        name: Result(
            [row[seed]["miou"] for seed in sorted(row)], _paired(row, rows.get(CONTROL, {}))
        )
        for name, row in rows.items()
    }


def agreement(gains: Sequence[float]) -> str:
    """Whether every seed "helps" or "harms", or they are "mixed"."""
    if min(gains) > 0:
        return "helps"
    return "harms" if max(gains) < 0 else "mixed"


def _by_row(summary: Summary) -> dict[str, dict[int, Record]]:
    rows: dict[str, dict[int, Record]] = {}
    for record in summary["rows"]:
        rows.setdefault(record["row"], {})[record["seed"]] = record
    return {name: rows[name] for name in LABELS if name in rows}


def seeds_of(summary: Summary) -> list[int]:
    """The seeds that occur, in order."""
    return sorted({record["seed"] for record in summary["rows"]})


def _paired(row: Mapping[int, Record], base: Mapping[int, Record]) -> list[float]:
    return [row[seed]["miou"] - base[seed]["miou"] for seed in sorted({*row} & {*base})]


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ruler, *lines))


def _each(row: Mapping[int, Record], seeds: Sequence[int], name: str, form: str) -> str:
    return " ".join(format(row[seed][name], form) for seed in seeds if seed in row)


def main_table(summary: Summary) -> str:
    """Lay out mean IoU: every row, every seed, gain over the control, alarms, seconds."""
    rows, seeds = _by_row(summary), seeds_of(summary)
    lines = []
    for name, row in rows.items():
        scores = [record["miou"] for record in row.values()]
        gains = _paired(row, rows.get(CONTROL, {})) if name != CONTROL else []
        label = f"**{LABELS[name]}**" if name == "bicl" else LABELS[name]
        if name == SOURCE and UNAUGMENTED in rows:
            label += ", augmented"
        lines.append(
            [
                label,
                f"{statistics.mean(scores):.1f}",
                f"{statistics.stdev(scores):.1f}" if len(scores) > 1 else "",
                *(f"{row[seed]['miou']:.1f}" if seed in row else "" for seed in seeds),
                f"{statistics.mean(gains):+.1f}" if gains else "",
                f"{min(gains):+.1f}" if gains else "",
                _each(row, seeds, "share_ratio_max", ".1f"),
                _each(row, seeds, "share_ratio_min", ".2f"),
                _each(row, seeds, "warnings", "d"),
                f"{statistics.mean(record['seconds'] for record in row.values()):.0f}",
            ]
        )
    header = [
        "row", "mean", "sd", *(f"seed {seed}" for seed in seeds), "over control",
        "smallest", "rmax", "rmin", "warnings", "s",
    ]  # fmt: skip
    return _markdown(header, lines)


def ingredient_table(summary: Summary) -> str:
    """Lay out what each ingredient is worth, paired by seed; empty without such rows."""
    rows = _by_row(summary)
    lines = []
    for name in INGREDIENTS:
        row = rows.get(f"without_{name}")
        if row is None or "bicl" not in rows:
            continue
        worth = _paired(rows["bicl"], row)
        if not worth:
            continue
        agreed = {
            "helps": "worse than BiCL in every seed",
            "harms": "better than BiCL in every seed",
            "mixed": "no consistent difference",
        }[agreement(worth)]
        each = " ".join(f"{value:+.1f}" for value in worth)
        lines.append([LABELS[f"without_{name}"], f"{statistics.mean(worth):+.1f}", each, agreed])
    header = ["variant", "BiCL minus variant", "each seed", "the variant is"]
    return _markdown(header, lines) if lines else ""


def class_table(summary: Summary) -> str:
    """Lay out IoU per class, the mean over seeds, for the rows of the demo."""
    rows = _by_row(summary)
    names = [name for name in CAPTIONS if name in rows]
    lines = []
    for label in dict.fromkeys(name for record in summary["rows"] for name in record["iou"]):
        cells = []
        for name in names:
            values = [r["iou"][label] for r in rows[name].values() if label in r["iou"]]
            cells.append(f"{statistics.mean(values):.1f}" if values else "")
        if any(cells):
            lines.append([label, *cells])
    return _markdown(["class", *(CAPTIONS[name] for name in names)], lines)


def _listed(entries: Sequence[Mapping[str, Any]]) -> str:
    return "; or ".join(
        ", ".join(f"{name} {value}" for name, value in entry.items()) for entry in entries
    )


def render(summary: Summary | None) -> str:
    """Compose the generated part of one target.

    Args:
        summary: as `summarise` returns it; None where nothing was stored.
    """
    if summary is None:
        return "No numbers are stored yet."
    images = summary["images"]
    parts = [
        f"Command: `{summary['command']}`. Target: {summary['target']}; {images['source']} source, "
        f"{images['target']} unlabelled target and {images['test']} test images "
        f"(split {summary['split']}).\n"
        f"Versions: {_listed(summary['versions'])}.\nMachine: {_listed(summary['machines'])}.",
        "Mean IoU in percent over the classes that occur in the test labels. *rmax* and *rmin* are "
        "the largest and smallest share of a class among the predictions on the target over its "
        "share among the source labels, seed by seed; *warnings* counts the alarms of a run. "
        "Seconds are wall time of training, one thread per run.",
        main_table(summary),
    ]
    if worth := ingredient_table(summary):
        parts += [
            "Every ingredient left out or replaced in turn, points of mean IoU, paired by seed:",
            worth,
        ]
    parts += ["IoU per class in percent, mean over the seeds:", class_table(summary)]
    return "\n\n".join(parts)


def label_of(row: str) -> str:
    """What the table calls a row."""
    return "BiCL, settings of this recipe" if row == "bicl" else LABELS[row]


def _method_cells(result: Result | None, row: str) -> list[str]:
    if result is None:
        return ["", "", ""]
    spread = statistics.stdev(result.scores) if len(result.scores) > 1 else 0.0
    mean = f"{statistics.mean(result.scores):.1f} ({spread:.1f})"
    if row == CONTROL or not result.gains:
        return [mean, "", ""]
    gain = f"{statistics.mean(result.gains):+.1f}"
    if agreement(result.gains) == "helps":
        gain = f"**{gain}**"
    return [mean, gain, " ".join(f"{gain:+.1f}" for gain in result.gains)]


def methods_table(targets: Mapping[str, Summary | None]) -> str:
    """Lay out every row with mean, spread and gain, target by target.

    Args:
        targets: what a column calls a target -> its numbers.
    """
    found = {name: results_of(summary) for name, summary in targets.items() if summary}
    header = ["row"]
    for name in found:
        header += [f"{name} (sd)", "gain", "each seed"]
    lines = []
    for row in LABELS:
        if any(row in results for results in found.values()):
            cells = [
                cell for results in found.values() for cell in _method_cells(results.get(row), row)
            ]
            lines.append([label_of(row), *cells])
    return _markdown(header, lines)


def render_methods(targets: Mapping[str, Summary | None]) -> str:
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
    return "\n\n".join([*parts, f"![{TITLE}](pictures/{PICTURE})", methods_table(stored)])


def replace_section(text: str, section: str, body: str) -> str:
    """Put `body` between the markers of a section and leave all other text as it is.

    Raises:
        ValueError: the text does not hold both markers, once each.
    """
    begin, end = f"<!-- generated: {section} -->", f"<!-- end: {section} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"replace_section: expected text with one {begin} before one {end}, got "
            f"{text.count(begin)} and {text.count(end)} of them."
        )
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{body}\n{end}", text, flags=re.DOTALL)


def load_summary(docs: Path, section: str) -> dict[str, Any] | None:
    """Read docs/results/<section>.json; None where there is none."""
    path = docs / "results" / f"{section}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def rendered(docs: Path) -> str:
    """Return docs/results.md as the stored numbers say it should read."""
    text = (docs / "results.md").read_text(encoding="utf-8")
    for section in SECTIONS:
        text = replace_section(text, section, render(load_summary(docs, section)))
    return replace_section(text, "methods", render_methods(methods(docs)))


def methods(docs: Path) -> dict[str, Summary | None]:
    """What is stored about related methods, by target."""
    return {name: load_summary(docs, file) for name, file in METHODS.items()}


def main(docs: Path = DOCS) -> None:
    """Write docs/results.md anew."""
    write_atomically(docs / "results.md", rendered(docs))


if __name__ == "__main__":
    main()
