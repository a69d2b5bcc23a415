"""`python -m benchmarks.table`: everything that shows benchmarks/results/cpu.json, written again.

The tables of docs/performance.md, all rows in benchmarks/results/cpu.md and as
benchmarks/results/cpu.csv, and the picture in docs. Nothing is measured, and the same
numbers give the same files.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.goals import goals
from benchmarks.report import ROOT, Measured, comparison, in_c, insert
from benchmarks.slower import explained

RESULTS = Path(__file__).parent / "results" / "cpu.json"
SHEET = RESULTS.with_suffix(".csv")
ROWS = RESULTS.with_suffix(".md")
ROWS_LINK = f"../benchmarks/results/{ROWS.name}"
EXPLAINED = "[docs/performance.md](../../docs/performance.md) says what is compared, and how."
DOCUMENT = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "pictures" / "benchmarks.svg"
BEGIN = "<!-- measured: begin, written by `make bench` -->"
END = "<!-- measured: end -->"
WHERE = ("device", "threads", "libc", "torch", "compiler", "python", "protocontrast", "commit")


def conditions(stored: dict[str, Any]) -> str:
    """One paragraph: on what, with what and when this was measured."""
    where, fewest = stored["environment"], stored["fewest_repetitions"]
    compiled = where["compiler"]
    if compiled == "none":
        compiled = "no C++ compiler, so no torch.compile"
    if in_c(where):
        compiled += f", protocontrast{in_c(where)}"
    return (
        f"{where['device']}, {where['cores']} cores, one thread used; load average at the start "
        f"{where['load_average']:.2f}. torch {where['torch']}, {compiled}, Python "
        f"{where['python']}, {where['libc']}, transparent huge pages: {where['huge_pages']}. "
        f"protocontrast {where['protocontrast']} at {where['commit']}, {where['date']}. Features "
        f"({stored['images']}, D, height, width), {stored['ignored_share']:.0%} of labels ignored; "
        "float32, NCHW and C = 19 where a case does not say otherwise. Medians of "
        f"{stored['repetitions']} repetitions, of down to {fewest} in slow cases; in brackets the "
        f"distance of the quartiles. The run took {stored['minutes']:g} minutes."
    )


def render(stored: dict[str, Any]) -> str:
    """The whole measured part of docs/performance.md."""
    measured = Measured(stored["rows"])
    parts = [
        conditions(stored),
        f"![Time and memory in copies of the features](pictures/{PICTURE.name})",
        f"All cases and contenders stand in [benchmarks/results/{ROWS.name}]({ROWS_LINK}).",
        "### Goals", goals(measured),
        "### Where it is slower", explained(measured),
    ]  # fmt: skip
    return "\n\n".join(parts)


def all_rows(stored: dict[str, Any]) -> str:
    """Every case and contender, as a page of its own."""
    parts = ["# All cases on a CPU", EXPLAINED, conditions(stored)]
    return "\n\n".join([*parts, comparison(Measured(stored["rows"]))]) + "\n"


def sheet(stored: dict[str, Any]) -> str:
    """All rows as CSV, with the environment in each."""
    where = {name: stored["environment"][name] for name in (*WHERE, "date")}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*stored["rows"][0], *where], lineterminator="\n")
    writer.writeheader()
    for row in stored["rows"]:
        writer.writerow({**row, "size": "{}x{}".format(*row["size"]), **where})
    return text.getvalue()


def written() -> dict[Path, str]:
    """The files and what the stored results make of them."""
    stored = json.loads(RESULTS.read_text("utf-8"))
    return {
        DOCUMENT: insert(DOCUMENT.read_text("utf-8"), render(stored), BEGIN, END),
        PICTURE: draw(stored),
        SHEET: sheet(stored),
        ROWS: all_rows(stored),
    }


def publish() -> None:
    """Write them."""
    for path, text in written().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    publish()
