"""`python -m benchmarks.scaling`: cost per pixel as maps, channels and classes grow.

Writes benchmarks/results/cpu_scaling.json, docs/pictures/scaling.svg and the table in
docs/performance.md; `--draw` draws both again from the stored numbers.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.agreement import check_all
from benchmarks.cases import Case
from benchmarks.compare import environment
from benchmarks.contenders import IGNORE_INDEX, NUM_CLASSES
from benchmarks.inputs import Inputs
from benchmarks.measure import interleaved
from benchmarks.operators import LIBRARY, OPERATORS, run
from benchmarks.report import ROOT, in_c, insert, table
from benchmarks.table import DOCUMENT

RESULTS = Path(__file__).parent / "results" / "cpu_scaling.json"
PICTURE = ROOT / "docs" / "pictures" / "scaling.svg"
BEGIN = "<!-- scaling: begin, written by `python -m benchmarks.scaling` -->"
END = "<!-- scaling: end -->"
EAGER = "eager"
REPETITIONS = 5
GRADIENTS = {"contrast": "features", "transfer_labels": "none"}


class Point(NamedTuple):
    """One map: pixels in all, channels, classes."""

    pixels: int
    channels: int
    classes: int


SWEEPS: dict[str, list[Point]] = {
    "pixels": [Point(int(10**power), 64, NUM_CLASSES) for power in (3, 3.5, 4, 4.5, 5, 5.5, 6)],
    "channels": [Point(16384, 2**power, NUM_CLASSES) for power in range(4, 12)],
    # The number that marks ignored pixels is no class.
    "classes": [Point(65536, 64, min(2**power, IGNORE_INDEX)) for power in range(1, 9)],
}
"""Name of the axis -> points along it; everything else stays."""


def inputs_of(point: Point, gradient: str) -> Inputs:
    """One image of one row of pixels, each around its class's direction."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(point.classes, point.channels, generator=random)
    classes = torch.randint(point.classes, (1, 1, point.pixels), generator=random)
    # Nearer pixels would saturate the softmax of two classes, and no digit be left to compare.
    noise = torch.randn(1, 1, point.pixels, point.channels, generator=random)
    features = rows[classes] + 4 * noise
    features = features.permute(0, 3, 1, 2).contiguous().requires_grad_(gradient != "none")
    ignored = torch.rand(classes.shape, generator=random) < 0.3
    labels = torch.where(ignored, IGNORE_INDEX, classes)
    return Inputs(features, labels, rows, features.detach(), labels, torch.tensor(1.0))


def measured(sweeps: dict[str, list[Point]], repetitions: int) -> Iterator[dict[str, Any]]:
    """A row per operator, point and contender, after both agree."""
    for axis, points in sweeps.items():
        for name, gradient in GRADIENTS.items():
            operator = OPERATORS[name]
            for point in points:
                print(f"{axis}: {name} {tuple(point)}", file=sys.stderr, flush=True)
                inputs = inputs_of(point, gradient)
                case = Case(name, gradient, point.channels, size=(1, point.pixels))
                check_all(case, inputs, operator)
                calls = {who: partial(run, operator, who, inputs) for who in (LIBRARY, EAGER)}
                for who, taken in interleaved(calls, repetitions).items():
                    milliseconds = statistics.median(time for time, _ in taken)
                    yield {
                        "axis": axis,
                        "operator": name,
                        "gradient": gradient,
                        **point._asdict(),
                        "contender": who,
                        "time_ms": round(milliseconds, 4),
                    }


def nanoseconds_per_pixel(row: dict[str, Any]) -> float:
    """Time of one pixel."""
    return 1e6 * row["time_ms"] / row["pixels"]


def _line(rows: list[dict[str, Any]], axis: str, operator: str, who: str) -> list[dict[str, Any]]:
    return [
        row
        for row in rows
        if (row["axis"], row["operator"], row["contender"]) == (axis, operator, who)
    ]


def growth(stored: dict[str, Any]) -> str:
    """A Markdown table: cost per pixel at both ends of every axis, and its growth."""
    lines = []
    for axis in SWEEPS:
        for name in GRADIENTS:
            for who in (LIBRARY, EAGER):
                ends = _line(stored["rows"], axis, name, who)
                first, last = (nanoseconds_per_pixel(row) for row in (ends[0], ends[-1]))
                reach = f"{ends[0][axis]} to {ends[-1][axis]}"
                times = [f"{first:.0f}", f"{last:.0f}", f"{last / first:.2f}"]
                lines.append([axis, reach, name, who, *times])
    header = ["axis", "from, to", "operator", "", "ns per pixel", "ns per pixel", "growth"]
    return table(header, lines)


def render(stored: dict[str, Any]) -> str:
    """The section of docs/performance.md."""
    where = stored["environment"]
    return (
        f"{where['device']}, one thread; torch {where['torch']}, protocontrast{in_c(where)} at "
        f"{where['commit']}, {where['date']}; medians of {stored['repetitions']} repetitions of "
        "thread CPU time, default allocator, contrast with the gradient of the features.\n\n"
        f"![Cost per pixel against pixels, channels and classes](pictures/{PICTURE.name})\n\n"
        + growth(stored)
    )


def draw(stored: dict[str, Any], path: Path) -> None:
    """One panel per axis, both scales logarithmic, time per pixel."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # The same numbers give the same file.
    with pyplot.rc_context({"svg.hashsalt": "scaling", "font.size": 9}):
        figure, panels = pyplot.subplots(1, len(SWEEPS), figsize=(10, 3.4), sharey=True)
        colours = dict(zip(GRADIENTS, ("#2f6db5", "#b8661b"), strict=True))
        for panel, axis in zip(panels, SWEEPS, strict=True):
            for name, colour in colours.items():
                for who, style in ((LIBRARY, "-"), (EAGER, ":")):
                    line = _line(stored["rows"], axis, name, who)
                    places = [row[axis] for row in line]
                    times = [nanoseconds_per_pixel(row) for row in line]
                    label = f"{name}, {who}"
                    panel.plot(places, times, style, color=colour, marker=".", label=label)
            others = SWEEPS[axis][0]._asdict()
            fixed = ", ".join(f"{key} {value}" for key, value in others.items() if key != axis)
            panel.set(xscale="log", yscale="log", xlabel=axis, title=fixed)
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("ns per pixel")
        panels[0].legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure, or read what is stored, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draw", action="store_true", help="from the stored numbers")
    options = parser.parse_args(arguments)
    if not options.draw:
        torch.set_num_threads(1)
        where = environment()
        rows = list(measured(SWEEPS, REPETITIONS))
        found = {"environment": where, "repetitions": REPETITIONS, "rows": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    stored = json.loads(RESULTS.read_text())
    draw(stored, PICTURE)
    text = insert(DOCUMENT.read_text("utf-8"), render(stored), BEGIN, END)
    DOCUMENT.write_text(text, "utf-8")
    print(growth(stored))


if __name__ == "__main__":
    main()
