"""Draws what the front page shows of measurements: `python docs/draw_front.py`.

Gains come from docs/results/, times and memory from benchmarks/results/cpu.json.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from drawing import FEATURES, INK, MUTED, PROTOTYPES, WIDTH, Paint, Picture

DOCS = Path(__file__).parent
PICTURES = DOCS / "pictures"
MEASURED = DOCS.parent / "benchmarks" / "results" / "cpu.json"
CONTROL = "source_only_continued"


class Row(NamedTuple):
    """A bar: where it was measured, what it is called, and the row of that table."""

    results: str
    name: str
    row: str


GAINS = (
    Row("methods", "drawn streets: BiCL, tuned", "bicl"),
    Row("methods", "drawn streets: BiCL, published", "method_bicl"),
    Row("methods", "drawn streets: DACS", "method_dacs"),
    Row("methods", "drawn streets: DACS with BiCL's contrast", "method_bicl_dacs"),
    Row("methods-night", "drawn nights: BiCL, tuned by day", "bicl"),
    Row("methods-night", "drawn nights: BiCL, published", "method_bicl"),
    Row("methods-night", "drawn nights: DACS", "method_dacs"),
    Row("methods-night", "drawn nights: DACS with BiCL's contrast", "method_bicl_dacs"),
    Row("carla-to-camvid", "CARLA to CamVid: BiCL, published", "bicl"),
    Row("carla-to-camvid", "CARLA to CamVid: BiCL, by frequency", "balanced_prior_no_entropy"),
    Row("carla-to-kitti", "CARLA to KITTI: BiCL, published", "bicl"),
    Row("carla-to-kitti", "CARLA to KITTI: BiCL, by frequency", "balanced_prior_no_entropy"),
    Row("day-to-dusk", "day to dusk: BiCL, tuned on drawn streets", "bicl"),
)


class Case(NamedTuple):
    """Two pairs of bars: a case of the benchmark and what it is called."""

    name: str
    operator: str
    gradient: str
    channels: int


COSTS = (
    Case("contrast, with gradient", "contrast", "features", 256),
    Case("bidirectional step, with gradients", "bidirectional step", "both features", 256),
    Case("label transfer", "transfer_labels", "none", 256),
    Case("upsampled cross-entropy, with gradient", "upsampled CE", "features", 19),
)


def gains(row: Row) -> list[float]:
    """Points of mean IoU over the control, seed by seed."""
    rows = json.loads((DOCS / "results" / f"{row.results}.json").read_text("utf-8"))["rows"]
    scores: dict[str, dict[int, float]] = {row.row: {}, CONTROL: {}}
    for record in rows:
        if record["row"] in scores:
            scores[record["row"]][record["seed"]] = record["miou"]
    return [score - scores[CONTROL][seed] for seed, score in sorted(scores[row.row].items())]


def gain() -> Picture:
    """A bar per target, with a dot for every seed."""
    found = [(row.name, gains(row)) for row in GAINS]
    high = 84 + 34 * len(found)
    title = "What adaptation gains over further training on the source, points of mean IoU"
    picture = Picture(title, height=high + 30, legend=())
    # What is at the left is seen first on a phone, so the numbers stand before the bars.
    middle, scale = 530, 11.5
    for place, (name, seeds) in enumerate(found):
        y = 56 + 34 * place
        end = middle + scale * mean(seeds)
        paint = FEATURES if mean(seeds) > 0 else PROTOTYPES
        picture.words(284, y + 15, name, anchor="end")
        picture.box(min(middle, end), y, abs(end - middle), 20, paint, dark=True, rounded=2)
        for seed in seeds:
            picture.dot(middle + scale * seed, y + 10, Paint("", INK, "#ffffff"))
        picture.words(338, y + 15, f"{mean(seeds):+.1f}", anchor="end", weight=600)
    picture.parts.append(
        f'<line x1="{middle}" y1="46" x2="{middle}" y2="{high - 22}" stroke="{INK}"/>'
    )
    picture.note(24, high, "A dot is a seed. Small networks, random or ImageNet weights;", "start")
    picture.note(24, high + 16, "every row and its settings: docs/results.md.", "start")
    return picture


def figures(case: Case) -> dict[str, dict[str, Any]]:
    """The figures of the library and of plain torch, by contender."""
    rows = json.loads(MEASURED.read_text("utf-8"))["rows"]
    asked = ("default", case.operator, case.gradient, case.channels, "NCHW", "float32", [128, 256])
    names = ("allocator", "operator", "gradient", "channels", "layout", "dtype", "size")
    found = {row["contender"]: row for row in rows if tuple(row[name] for name in names) == asked}
    return {who: found[who] for who in ("eager", "protocontrast")}


def cost() -> Picture:
    """Milliseconds beside MiB, plain torch above the library."""
    high = 84 + 62 * len(COSTS)
    about = json.loads(MEASURED.read_text("utf-8"))["environment"]
    picture = Picture("Time and memory on one core of a CPU", height=high + 16, legend=())
    units = (("time_ms", "ms", 300, 180), ("peak_mib", "MiB", 570, 160))
    for unit in units:
        picture.words(unit[2], 54, {"ms": "milliseconds", "MiB": "MiB of memory"}[unit[1]], size=12)
    for place, case in enumerate(COSTS):
        y = 66 + 62 * place
        found = figures(case)
        picture.words(24, y + 25, case.name)
        for key, unit, x, length in units:
            most = max(row[key] for row in found.values())
            for line, (who, row) in enumerate(found.items()):
                paint = PROTOTYPES if who == "eager" else FEATURES
                width = max(2, length * row[key] / most)
                picture.box(x, y + 22 * line, width, 18, paint, dark=True, rounded=2)
                text = f"{row[key]:.0f}" if row[key] >= 10 else f"{row[key]:.1f}"
                picture.words(x + width + 6, y + 22 * line + 14, f"{text} {unit}", size=12)
    for x, paint, name in ((24, PROTOTYPES, "plain torch"), (140, FEATURES, "protocontrast")):
        picture.box(x, high - 6, 12, 12, paint, dark=True)
        picture.words(x + 18, high + 4, name, size=11, color=MUTED)
    machine = f"{about['device']}, two maps of 128 x 256, 256 channels or 19 logits: make bench"
    picture.note(WIDTH - 24, high + 4, machine, "end")
    return picture


def drawn() -> dict[str, str]:
    """Pictures by file name."""
    return {"gain.svg": gain().svg(), "cost.svg": cost().svg()}


if __name__ == "__main__":
    for name, svg in drawn().items():
        (PICTURES / name).write_text(svg, "utf-8")
