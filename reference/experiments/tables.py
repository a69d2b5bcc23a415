"""Tables of docs/results.md, composed from the numbers in docs/results/*.json.

    python -m reference.experiments.tables

writes the generated parts of docs/results.md anew, between their markers; the text around them
is written by hand and stays. `python -m reference.ablate` stores the numbers and calls this.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from reference.atomic import write_atomically
from reference.data.classes import NAMES
from reference.experiments import method_tables
from reference.experiments.row_names import CONTROL, INGREDIENTS, LABELS, SOURCE, UNAUGMENTED
from reference.experiments.rows import CAPTIONS

SECTIONS: Final = ("toy", "photographs", "varied", "sequence")
# What a column of the methods' table calls a target, and the file with its numbers.
METHODS: Final = {
    "drawn streets": "methods",
    "photographs": "methods-photographs",
    "drawn nights": "methods-night",
}
DOCS: Final = Path(__file__).resolve().parents[2] / "docs"

Record = Mapping[str, Any]
Summary = Mapping[str, Any]


def summarise(records: Sequence[Record], *, target: str, command: str) -> dict[str, Any]:
    """Cut stored records down to the numbers that documents show.

    Args:
        records: of the matrix, in the order of tables.
        target: name of the target domain.
        command: what made them.
    """
    kept = (
        "row", "seed", "miou", "iou", "share_ratio_max", "share_ratio_min", "coverage_end",
        "label_accuracy_end", "seconds",
    )  # fmt: skip
    return {
        "target": target,
        "command": command,
        "split": records[0]["split"],
        "images": records[0]["images"],
        "versions": _distinct(record["versions"] for record in records),
        "machines": _distinct(record["machine"] for record in records),
        "code": _distinct(record["code"] for record in records),
        "rows": [
            {name: record[name] for name in kept} | {"warnings": len(record["warnings"])}
            for record in records
        ],
    }


def _distinct(values: Any) -> list[Any]:
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
    return seen


def _by_row(summary: Summary) -> dict[str, dict[int, Record]]:
    rows: dict[str, dict[int, Record]] = {}
    for record in summary["rows"]:
        rows.setdefault(record["row"], {})[record["seed"]] = record
    return {name: rows[name] for name in LABELS if name in rows}


def seeds_of(summary: Summary) -> list[int]:
    """Return the seeds that occur, in order."""
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
        agreed = "no consistent difference"
        if min(worth) > 0:
            agreed = "worse than BiCL in every seed"
        elif max(worth) < 0:
            agreed = "better than BiCL in every seed"
        each = " ".join(f"{value:+.1f}" for value in worth)
        lines.append([LABELS[f"without_{name}"], f"{statistics.mean(worth):+.1f}", each, agreed])
    header = ["variant", "BiCL minus variant", "each seed", "the variant is"]
    return _markdown(header, lines) if lines else ""


def class_table(summary: Summary) -> str:
    """Lay out IoU per class, the mean over seeds, for the rows of the demo."""
    rows = _by_row(summary)
    names = [name for name in CAPTIONS if name in rows]
    lines = []
    for label in NAMES:
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
    return replace_section(text, "methods", method_tables.render(methods(docs)))


def methods(docs: Path) -> dict[str, Summary | None]:
    """What is stored about related methods, by target."""
    return {name: load_summary(docs, file) for name, file in METHODS.items()}


def main(docs: Path = DOCS) -> None:
    """Write docs/results.md anew."""
    write_atomically(docs / "results.md", rendered(docs))


if __name__ == "__main__":
    main()
