"""Measurements on GPUs as Markdown, and their place in docs/performance.md."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu.bounds import ELEMENT_BYTES
from benchmarks.gpu.cases import ALIGNED, COMPILED, EAGER, FEATURES
from benchmarks.gpu.store import published
from benchmarks.report import insert, inserted, number, table
from benchmarks.table import DOCUMENT

BEGIN = "<!-- measured on GPUs: begin, written by `make bench-gpu` -->"
END = "<!-- measured on GPUs: end -->"
NOTHING = "Not measured on a GPU."

FRACTION = 0.85
OVER_EAGER = 5.0
OVER_COMPILED = 2.0
GRADIENTS = 1.1
"""Peak extra memory of a forward and its backward, in gradients of the features."""
UPSAMPLED_OVER_EAGER = 3.0
STEP_LAUNCHES = 12
STEP_RATIO = 4.0

Row = dict[str, Any]

CELL = "us; share of the bound; over eager; over torch.compile; peak MiB"


def missed(row: Row) -> list[str]:
    """Which goals a row misses, or, where a number is missing, cannot show to meet."""
    if "failure" in row:
        return ["a result"]
    if row["operator"] not in FEATURES:
        return _upsampled_missed(row)
    at_least = [
        ("share of bound", row["fraction_of_bound"], FRACTION),
        ("eager", row["speedup_over_eager"], OVER_EAGER),
        ("torch.compile", row["speedup_over_compiled"], OVER_COMPILED),
    ]
    found = [name for name, value, least in at_least if value is None or value < least]
    if row["pass"] != "forward" and row["peak_mib"] > GRADIENTS * row["gradient_mib"]:
        found.append("memory")
    return found


def upsampled_mib(row: Row) -> float:
    """Size of the logits at the labels' size, which eager torch has in memory."""
    return math.prod(row["labels"]) * row["C"] * ELEMENT_BYTES[row["dtype"]] / 2**20


def _upsampled_missed(row: Row) -> list[str]:
    gain = row["speedup_over_eager"]
    found = [] if gain is not None and gain >= UPSAMPLED_OVER_EAGER else ["eager"]
    return found if row["peak_mib"] < upsampled_mib(row) else [*found, "memory"]


def verdict(row: Row) -> str:
    """ "met", or what is missed."""
    found = missed(row)
    return f"missed: {', '.join(found)}" if found else "met"


def mode(row: Row) -> str:
    """The dtype, and for float32 the precision of its products."""
    return row["dtype"] + ("" if row["dtype"] != "float32" else f", {row['precision']}")


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if "failure" in row:
        return "failed"
    numbers = [
        number(row["time_us"]),
        f"{number(row['fraction_of_bound'])} of {row['binds']}",
        number(row["speedup_over_eager"], "x"),
        number(row["speedup_over_compiled"], "x"),
        number(row["peak_mib"]),
    ]
    return "; ".join(numbers)


def _verdicts(rows: Iterable[Row]) -> str:
    failing = [f"{mode(row)}: {verdict(row)}" for row in rows if missed(row)]
    return "; ".join(failing) or "met"


def operators(rows: list[Row], asked: bool) -> str:
    """One line per pass and kind of input, the modes side by side: a document has to stay short."""
    modes = list(dict.fromkeys(map(mode, rows)))
    lines: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        size = f"{row['N']} x {row['D']}"
        key = row["operator"], row["pass"], size, str(row["C"]), row["layout"]
        lines.setdefault(key, {})[mode(row)] = row
    header = ["operator", "pass", "N x D", "C", "layout", *modes, *(["goals"] if asked else [])]
    return table(
        header,
        (
            [*key, *(_cell(found.get(m)) for m in modes)]
            + ([_verdicts(found.values())] if asked else [])
            for key, found in lines.items()
        ),
    )


def upsampled(rows: list[Row]) -> str:
    """One line per pass of logits and finer labels, with the peak memory of every contender."""
    lines = []
    for row in rows:
        sizes = ("x".join(map(str, row[name][1:])) for name in ("images", "labels"))
        numbers = [
            *(number(row.get(name)) for name in ("time_us", "fraction_of_bound")),
            *(number(row.get(f"speedup_over_{name}"), "x") for name in ("eager", "compiled")),
            number(row.get("peak_mib")),
            *(number(row.get(f"peak_mib_{name}")) for name in (EAGER, COMPILED)),
        ]
        corners = "aligned" if row["operator"] == ALIGNED else "not aligned"
        where = [" to ".join(sizes), str(row["C"]), row["dtype"], corners, row["pass"]]
        lines.append([*where, *numbers, number(upsampled_mib(row)), verdict(row)])
    header = [
        "logits to labels", "C", "logits", "corners", "pass", "us", "share of the bound",
        "over eager", "over torch.compile", "peak MiB", "eager's", "torch.compile's",
        "upsampled logits, MiB", "goals",
    ]  # fmt: skip
    return table(header, lines)


def conditions(measured: dict[str, Any]) -> str:
    """One paragraph: on what, with what and when this was measured, and what the device can do."""
    where, limits = measured["environment"], measured["limits"]
    done = "" if measured["complete"] else " Time ran out before the last case."
    moved = ", ".join(f"{mix} {v / 1e12:.2f}" for mix, v in limits["bytes_per_second"].items())
    products = ", ".join(f"{m} {v / 1e12:.0f}" for m, v in limits["flops_per_second"].items())
    return (
        f"{where['device']}, driver {where['driver']}; torch {where['torch']}, triton "
        f"{where['triton']}, CUDA {where['cuda']}, Python {where['python']}. protocontrast "
        f"{where['protocontrast']} at {where['commit']}, {where['date']}.{done} Measured limits: "
        f"{moved} TB/s; {products} TFLOP/s; {limits['empty_launch_us']:.2f} us per empty kernel in "
        "a graph."
    )


def steps(rows: list[Row]) -> str:
    """The bidirectional step at the BiCL size."""
    lines = []
    for row in rows:
        ratio = row["over_empty_launches"]
        own = row["contender"] == "protocontrast" and ratio is not None
        met = own and row["launches"] <= STEP_LAUNCHES and ratio <= STEP_RATIO
        lines.append(
            [
                row["contender"],
                "x".join(str(n) for n in row["shape"]),
                str(row["launches"]),
                number(row["replay_us"]),
                number(row["empty_launches_us"]),
                number(ratio, "x"),
                number(row["host_us"]),
                ("met" if met else "missed") if own else "-",
            ]
        )
    header = [
        "step", "features", "launches", "replayed, us", "as many empty kernels, us", "ratio",
        "host, us", f"at most {STEP_LAUNCHES} launches and {STEP_RATIO:g}x",
    ]  # fmt: skip
    return table(header, lines)


def render(measured: dict[str, Any]) -> str:
    """One device's part."""
    rows = [row for row in measured["rows"] if row["operator"] in FEATURES]
    finer = [row for row in measured["rows"] if row["operator"] not in FEATURES]
    asked = [row for row in rows if row["goal"]]
    others = [row for row in rows if not row["goal"]]
    goal = (
        f"Asked for: {FRACTION:.0%} of the bound, {OVER_EAGER:g} times as fast as eager torch, "
        f"{OVER_COMPILED:g} times as fast as torch.compile of it, peak memory of a forward and its "
        f"backward at most {GRADIENTS:g} gradients."
    )
    parts = [f"### {measured['environment']['device']}", conditions(measured)]
    if rows:
        parts.append(f"In each cell: {CELL}.")
    if asked:
        parts += [goal, operators(asked, True)]
    if others:
        parts += ["Without a goal:", operators(others, False)]
    if finer:
        asks = (
            "Cross-entropy of upsampled logits, two images. Asked for, of every pass: "
            f"{UPSAMPLED_OVER_EAGER:g} times as fast as eager torch, peak memory below one "
            "tensor of upsampled logits."
        )
        parts += [asks, upsampled(finer)]
    if measured["step"]:
        parts += ["The bidirectional step and its backward:", steps(measured["step"])]
    return "\n\n".join(parts)


def render_all(measurements: list[dict[str, Any]]) -> str:
    """All devices, or the sentence that there is none."""
    return "\n\n".join(map(render, measurements)) or NOTHING


def update(document: Path = DOCUMENT) -> None:
    """Write the measured part into the document from the stored files."""
    text = document.read_text("utf-8")
    document.write_text(insert(text, render_all(published()), BEGIN, END), "utf-8")


def shown(document: Path = DOCUMENT) -> str:
    """The measured part as the document has it."""
    return inserted(document.read_text("utf-8"), BEGIN, END)
