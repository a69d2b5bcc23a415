"""Tables of docs/results.md, composed from the numbers in docs/results/*.json.

    python -m reference.experiments.tables

writes the parts of docs/results.md between markers anew; the text around them is written by hand
and stays. `python -m reference.ablate` stores the numbers and calls this.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, quantiles, stdev
from typing import Any, Final, NamedTuple

import tyro

from reference.data.settings import require
from reference.experiments.rows import (
    CLASS_CAPTIONS,
    CONTROL,
    INGREDIENTS,
    LABELS,
    ORACLE,
    PAIRS,
    SOURCE,
    UNAUGMENTED,
    usual_rows,
)
from reference.run.files import read_json, write_atomically

SECTIONS: Final = ("toy", "carla-to-camvid", "carla-to-kitti", "day-to-dusk")
# What a column of the methods' table calls a target, and the file with its numbers.
METHODS: Final = {
    "drawn streets": "methods",
    "drawn nights": "methods-night",
    "CamVid": "methods-carla-to-camvid",
    "KITTI": "methods-carla-to-kitti",
}
PICTURE: Final = "methods.svg"
TITLE: Final = "Gain over the continued control, points of mean IoU"
DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
_BESIDE: Final = {
    "bicl": "BiCL, settings of this recipe",
    "balanced_prior_no_entropy": "BiCL, balanced, labels by frequency",
    "no_contrast_no_entropy": "the same without contrast",
}
_KEPT: Final = (
    *("row", "seed", "miou", "iou", "share_ratio_max", "share_ratio_min", "coverage_end"),
    *("seconds", "warnings", "resampled"),
)
_MACHINE: Final = ("processor", "gpu", "cores", "system", "backend", "threads")
_RESAMPLED: Final = (
    " *95 %* is where the mean gain lies in 95 % of the resamples of the test images, drawn with "
    "replacement; neighbours of one drive are alike, so it is rather too narrow, and it knows "
    "nothing of other seeds."
)
_NOTHING: Final = "No numbers are stored yet."

Record = Mapping[str, Any]
Summary = Mapping[str, Any]


class Result(NamedTuple):
    """Mean IoU of one row on one target, seed by seed, and its gains over the control."""

    scores: list[float]
    gains: list[float]


def summarise(records: Sequence[Record], **about: Any) -> dict[str, Any]:
    """Cut records of `runs.record_of`, in the order of tables, down to what documents show.

    `about` are "target", its name; the "command" that made them; the "split" that was scored; and
    "images", how many there are of "source", "target" and "test".
    """
    machines = [
        {name: record["machine"][name] for name in _MACHINE if record["machine"].get(name)}
        for record in records
    ]
    return about | {
        "versions": _distinct([record["versions"] for record in records]),
        "machines": _distinct(machines),
        "code": _distinct([record["commit"] for record in records]),
        "rows": [{name: record[name] for name in _KEPT} for record in records],
    }


def joined(before: Summary, summary: Summary) -> dict[str, Any] | None:
    """The new rows beside those that stand; None where their sets or source networks differ."""
    had, have = ({(r["row"], r["seed"]): r for r in held["rows"]} for held in (before, summary))
    left = had.keys() - have.keys()
    begun = [{s for row, s in keys if row not in (UNAUGMENTED, ORACLE)} for keys in (left, have)]
    both = {(SOURCE, seed) for seed in begun[0] & begun[1]}
    alike = all(key in had and key in have and had[key]["iou"] == have[key]["iou"] for key in both)
    about = ("target", "split", "images") if left else ("target",)
    if not alike or any(before[name] != summary[name] for name in about):
        return None
    made = ("versions", "machines", "code") if left else ()
    rows = sorted((had | have).items(), key=lambda item: ([*LABELS].index(item[0][0]), item[0][1]))
    kept = {name: _distinct(before[name] + summary[name]) for name in made}
    return {**summary, **kept, "rows": [record for _, record in rows]}


def _distinct(values: list[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _by_row(summary: Summary) -> dict[str, dict[int, Record]]:
    """Records by row, in the order of tables, and by seed."""
    rows: dict[str, dict[int, Record]] = {name: {} for name in LABELS}
    for record in sorted(summary["rows"], key=lambda record: record["seed"]):
        rows[record["row"]][record["seed"]] = record
    return {name: row for name, row in rows.items() if row}


def _paired(row: Mapping[int, Record], base: Mapping[int, Record]) -> list[float]:
    return [row[seed]["miou"] - base[seed]["miou"] for seed in row if seed in base]


def _interval(row: Mapping[int, Record], base: Mapping[int, Record]) -> str:
    """Where 95 % of the resamples of images have the mean gain over the seeds; "" without them."""
    gains = []
    for seed in (seed for seed in row if seed in base):
        now, then = (record[seed].get("resampled") for record in (row, base))
        if now is None or then is None:
            return ""
        pairs = zip(now.split(), then.split(), strict=True)
        gains.append([(int(value) - int(old)) / 100 for value, old in pairs])
    ends = quantiles([mean(each) for each in zip(*gains, strict=True)], n=40, method="inclusive")
    return f"{ends[0]:+.1f} to {ends[-1]:+.1f}"


def results_of(summary: Summary) -> dict[str, Result]:
    """Every row of a target, in the order of tables."""
    rows = _by_row(summary)
    control = rows.get(CONTROL, {})
    return {
        name: Result([record["miou"] for record in row.values()], _paired(row, control))
        for name, row in rows.items()
    }


def agreement(gains: Sequence[float]) -> str:
    """Whether every seed "helps" or "harms", or they are "mixed"."""
    if min(gains) > 0:
        return "helps"
    return "harms" if max(gains) < 0 else "mixed"


def _told(gains: Sequence[float]) -> tuple[str, str]:
    """The mean of gains, and each of them, as tables show them."""
    return f"{mean(gains):+.1f}", " ".join(f"{gain:+.1f}" for gain in gains)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lay out a table, first column to the left, numbers to the right."""
    ruler = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ruler, *lines))


def main_table(summary: Summary) -> str:
    """Lay out mean IoU: every row, every seed, gain over the control, alarms, seconds."""
    rows = _by_row(summary)
    seeds = sorted({record["seed"] for record in summary["rows"]})
    resampled = any(record.get("resampled") for record in summary["rows"])
    lines = []
    for name, (scores, gains) in results_of(summary).items():
        row, records = rows[name], rows[name].values()
        label = f"**{LABELS[name]}**" if name == "bicl" else LABELS[name]
        told = gains and name != CONTROL
        lines.append([
            label + ", augmented" * (name == SOURCE and UNAUGMENTED in rows),
            f"{mean(scores):.1f}",
            f"{stdev(scores):.1f}" if len(scores) > 1 else "",
            *(f"{row[seed]['miou']:.1f}" if seed in row else "" for seed in seeds),
            f"{mean(gains):+.1f}" if told else "",
            f"{min(gains):+.1f}" if told else "",
            *([_interval(row, rows[CONTROL]) if told else ""] if resampled else []),
            " ".join(f"{record['share_ratio_max']:.1f}" for record in records),
            " ".join(f"{record['share_ratio_min']:.2f}" for record in records),
            " ".join(f"{record['warnings']}" for record in records),
            f"{mean(record['seconds'] for record in records):.0f}",
        ])  # fmt: skip
    header = [
        "row", "mean", "sd", *(f"seed {seed}" for seed in seeds), "over control",
        "smallest", *["95 %"] * resampled, "rmax", "rmin", "warnings", "s",
    ]  # fmt: skip
    return markdown(header, lines)


def ingredient_table(summary: Summary) -> str:
    """Lay out what each ingredient is worth, paired by seed; empty without such rows."""
    rows, lines = _by_row(summary), []
    said = {
        "helps": "worse than BiCL in every seed",
        "harms": "better than BiCL in every seed",
        "mixed": "no consistent difference",
    }
    for name in (f"without_{ingredient}" for ingredient in INGREDIENTS):
        if worth := _paired(rows.get("bicl", {}), rows.get(name, {})):
            lines.append([LABELS[name], *_told(worth), said[agreement(worth)]])
    header = ["variant", "BiCL minus variant", "each seed", "the variant is"]
    return markdown(header, lines) if lines else ""


def pair_table(summary: Summary) -> str:
    """Lay out what one row has over another, paired by seed; empty without a balanced row."""
    rows, lines = _by_row(summary), []
    for what, names in PAIRS.items() if "balanced" in rows else ():
        row, base = (rows.get(name, {}) for name in names)
        if worth := _paired(row, base):
            (middle, each), agreed = _told(worth), agreement(worth)
            verdict = agreed + " in every seed" * (agreed != "mixed")
            lines.append([what, middle, _interval(row, base), each, verdict])
    return markdown(["", "worth", "95 %", "each seed", "it"], lines) if lines else ""


def class_table(summary: Summary) -> str:
    """Lay out IoU per class, the mean over seeds, for the rows of `CLASS_CAPTIONS`."""
    rows = _by_row(summary)
    names = [name for name in CLASS_CAPTIONS if name in rows]
    lines = []
    for label in dict.fromkeys(name for record in summary["rows"] for name in record["iou"]):
        ious = [[r["iou"][label] for r in rows[n].values() if label in r["iou"]] for n in names]
        if any(ious):
            lines.append([label, *(f"{mean(values):.1f}" if values else "" for values in ious)])
    return markdown(["class", *(CLASS_CAPTIONS[name] for name in names)], lines)


def _listed(entries: Sequence[Mapping[str, Any]]) -> str:
    return "; or ".join(
        ", ".join(f"{name} {value}" for name, value in entry.items()) for entry in entries
    )


def _counts(summary: Summary) -> str:
    images = summary["images"]
    return (
        f"{images['source']} source, {images['target']} unlabelled target and {images['test']} "
        f"test images (split {summary['split']})"
    )


def _command(summary: Summary) -> str:
    """The command, and the rows that it trains only when they are named."""
    rows = dict.fromkeys(record["row"] for record in summary["rows"])
    more = " ".join(row for row in rows if row not in usual_rows(summary["target"]))
    return f"`{summary['command']}`" + (f", and the same with `--rows {more}`" if more else "")


def render(summary: Summary | None) -> str:
    """Compose the generated part of one target, None where nothing was stored."""
    if summary is None:
        return _NOTHING
    resampled = any(record.get("resampled") for record in summary["rows"])
    parts = [
        f"Command: {_command(summary)}. Target: {summary['target']}; {_counts(summary)}.\n"
        f"Versions: {_listed(summary['versions'])}.\nMachine: {_listed(summary['machines'])}.",
        "Mean IoU in percent over the classes that occur in the test labels. *rmax* and *rmin* are "
        "the largest and smallest share of a class among the predictions on the target over its "
        "share among the source labels, seed by seed; *warnings* counts the alarms of a run. "
        "Seconds are those of the training steps, one thread per run." + _RESAMPLED * resampled,
        main_table(summary),
    ]
    if worth := ingredient_table(summary):
        what = "Every ingredient left out or replaced in turn, points of mean IoU, paired by seed:"
        parts += [what, worth]
    if worth := pair_table(summary):
        parts += ["What one row has over another, points of mean IoU, paired by seed:", worth]
    parts += ["IoU per class in percent, mean over the seeds:", class_table(summary)]
    return "\n\n".join(parts)


def label_of(row: str) -> str:
    """What the table of methods calls a row."""
    return _BESIDE.get(row, LABELS[row])


def _method_cells(result: Result, *, compare: bool) -> list[str]:
    scores, gains = result
    score = f"{mean(scores):.1f} ({stdev(scores) if len(scores) > 1 else 0.0:.1f})"
    if not gains or not compare:
        return [score, "", ""]
    (middle, each), bold = _told(gains), "**" if agreement(gains) == "helps" else ""
    return [score, f"{bold}{middle}{bold}", each]


def methods_table(targets: Mapping[str, Summary]) -> str:
    """Lay out every row with mean, spread and gain, target by target."""
    every = {name: results_of(summary) for name, summary in targets.items()}
    header, lines = ["row"], []
    for name in every:
        header += [f"{name} (sd)", "gain", "each seed"]
    for row in (row for row in LABELS if any(row in results for results in every.values())):
        line = [label_of(row)]
        for results in every.values():
            shown = row in results
            line += _method_cells(results[row], compare=row != CONTROL) if shown else [""] * 3
        lines.append(line)
    return markdown(header, lines)


def render_methods(targets: Mapping[str, Summary]) -> str:
    """Compose the generated part: where the numbers are from, picture and table."""
    if not targets:
        return _NOTHING
    parts = []
    for name, summary in targets.items():
        machines = "; or ".join(
            f"{m['processor']}, backend {m.get('backend', 'eager')}" for m in summary["machines"]
        )
        parts.append(
            f"{name}: `{summary['command']}`; {_counts(summary)}; torch "
            f"{summary['versions'][0]['torch']}, {machines}, one thread per run."
        )
    parts.append(
        "Mean IoU in percent, in brackets its standard deviation over the seeds, then the gain "
        "over the continued control, its mean and every seed; bold where every seed gains."
    )
    return "\n\n".join([*parts, f"![{TITLE}](pictures/{PICTURE})", methods_table(targets)])


def replace_section(text: str, section: str, body: str) -> str:
    """Put `body` between the markers of a section and leave all other text as it is."""
    begin, end = f"<!-- generated: {section} -->", f"<!-- end: {section} -->"
    got = f"{text.count(begin)} and {text.count(end)} of them"
    ok = text.count(begin) == text.count(end) == 1 and text.index(begin) < text.index(end)
    require("replace_section", "text", got, f"with one {begin} before one {end}", ok)
    return f"{text.partition(begin)[0]}{begin}\n{body}\n{end}{text.partition(end)[2]}"


def load_summary(docs: Path, section: str) -> dict[str, Any] | None:
    """Read docs/results/<section>.json; None where there is none."""
    held: dict[str, Any] | None = read_json("ablate", docs / "results" / f"{section}.json")
    return held


def rendered(docs: Path) -> str:
    """Return docs/results.md as the stored numbers say it should read."""
    text = (docs / "results.md").read_text("utf-8")
    for section in SECTIONS:
        text = replace_section(text, section, render(load_summary(docs, section)))
    return replace_section(text, "methods", render_methods(methods(docs)))


def methods(docs: Path) -> dict[str, Summary]:
    """What is stored about related methods, by target."""
    stored = {name: load_summary(docs, file) for name, file in METHODS.items()}
    return {name: summary for name, summary in stored.items() if summary is not None}


def main(docs: Path = DOCS) -> None:
    """Write docs/results.md anew."""
    write_atomically(docs / "results.md", rendered(docs))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m reference.experiments.tables")
