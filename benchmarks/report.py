"""Measurements as Markdown: the table, the goals, and their place in docs/performance.md."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import LARGE, LIBRARY, RELEASED, UPSAMPLED
from benchmarks.contenders import NUM_CLASSES

BEGIN = "<!-- measured: begin, written by `make bench` -->"
END = "<!-- measured: end -->"
DEFAULT = "default"
NO_FAULTS = "page faults removed"

Row = dict[str, Any]


class Goal(NamedTuple):
    """What was asked for: a least speed-up, and for some a largest share of the peak memory."""

    operator: str
    gradient: str
    channels: int
    contender: str
    speedup: float
    memory_ratio: float | None
    size: tuple[int, int] = LARGE


GOALS = [
    *(
        Goal("contrast", gradient, channels, "eager", speedup, 0.3)
        for gradient in ("features", "features + prototypes")
        for channels, speedup in ((64, 5.0), (256, 4.0))
    ),
    *(
        Goal("class_prototypes", "none", channels, contender, 3.0, None)
        for contender in ("one-hot einsum", "one-hot bmm")
        for channels in (64, 256)
    ),
    *(Goal("transfer_labels", "none", channels, "eager", 3.0, None) for channels in (64, 256)),
    *(
        Goal(name, "features", NUM_CLASSES, "eager", speedup, 0.1, size)
        for size, speedup in ((LARGE, 3.5), (RELEASED, 2.5))
        for name in UPSAMPLED
    ),
]


def table(header: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(header)
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def number(value: float | None, unit: str = "") -> str:
    """Two decimals below 10, none above, "-" for nothing."""
    if value is None:
        return "-"
    return (f"{value:.2f}" if value < 10 else f"{value:.0f}") + unit


def _key(row: Row) -> tuple[Any, ...]:
    size = "{}x{}".format(*row["size"])
    return row["operator"], row["gradient"], row["channels"], size, row["layout"]


def _find(rows: list[Row], allocator: str, key: tuple[Any, ...], contender: str) -> Row | None:
    for row in rows:
        if row["allocator"] == allocator and _key(row) == key and row["contender"] == contender:
            return row
    return None


def _times(rows: list[Row], allocator: str, key: tuple[Any, ...], contender: str) -> list[str]:
    """The contender's time with its spread, the library's, and the speed-up."""
    other = _find(rows, allocator, key, contender)
    own = _find(rows, allocator, key, LIBRARY)
    if other is None or own is None:
        return ["-"] * 3
    times = [f"{number(row['time_ms'])} ({number(row['spread_ms'])})" for row in (other, own)]
    return [*times, number(other["speedup"], "x")]


def comparison(rows: list[Row]) -> str:
    """One line per case and alternative."""
    lines = []
    for row in rows:
        if row["allocator"] != DEFAULT or row["contender"] == LIBRARY:
            continue
        key, contender = _key(row), row["contender"]
        own = _find(rows, DEFAULT, key, LIBRARY)
        lines.append(
            [
                *(str(part) for part in key),
                contender,
                *_times(rows, DEFAULT, key, contender),
                *_times(rows, NO_FAULTS, key, contender),
                number(row["peak_mib"]),
                number(own["peak_mib"] if own else None),
                number(row["memory_ratio"]),
            ]
        )
    header = [
        "operator", "gradient", "D", "map", "layout", "against",
        "its ms", "ours, ms", "speed-up",
        "its ms, no page faults", "ours, ms", "speed-up",
        "its MiB", "ours, MiB", "share",
    ]  # fmt: skip
    return table(header, lines)


def _verdict(row: Row | None, field: str, at_least: float | None, at_most: float | None) -> str:
    value = None if row is None else row[field]
    if value is None:
        return "not measured"
    low = at_least is not None and value < at_least
    high = at_most is not None and value > at_most
    return f"{number(value)}, {'missed' if low or high else 'met'}"


def goals(rows: list[Row]) -> str:
    """What was asked for beside what was measured, under both allocators."""
    lines = []
    for goal in GOALS:
        key = goal.operator, goal.gradient, goal.channels, "{}x{}".format(*goal.size), "NCHW"
        found = [_find(rows, allocator, key, goal.contender) for allocator in (DEFAULT, NO_FAULTS)]
        name = f"{goal.operator}, gradient: {goal.gradient}, D = {goal.channels}"
        if goal.size != LARGE:
            name += ", {}x{}".format(*goal.size)
        verdicts = [_verdict(row, "speedup", goal.speedup, None) for row in found]
        lines.append([name, goal.contender, f"at least {goal.speedup:g} times as fast", *verdicts])
        if goal.memory_ratio is not None:
            verdicts = [_verdict(row, "memory_ratio", None, goal.memory_ratio) for row in found]
            asked = f"at most {goal.memory_ratio:g} of its peak"
            lines.append([name, goal.contender, asked, *verdicts])
    header = ["case", "against", "asked for", "default allocator", "page faults removed"]
    return table(header, lines)


def conditions(measured: dict[str, Any]) -> str:
    """One paragraph: on what, with what and when this was measured."""
    where = measured["environment"]
    return (
        f"{where['device']}, {where['cores']} cores, one thread used; load average at the start "
        f"{where['load_average']:.2f}. torch {where['torch']}, Python {where['python']}, "
        f"{where['libc']}, transparent huge pages: {where['huge_pages']}. protocontrast "
        f"{where['protocontrast']} at {where['commit']}, {where['date']}. Features "
        f"({measured['images']}, D, height, width) float32, C = {measured['num_classes']}, "
        f"{measured['ignored_share']:.0%} ignored; medians of {measured['repetitions']} "
        "repetitions, in brackets the distance of the quartiles."
    )


def render(measured: dict[str, Any]) -> str:
    """The whole measured part of docs/performance.md."""
    rows = measured["rows"]
    return "\n\n".join(
        [conditions(measured), "### Goals", goals(rows), "### All cases", comparison(rows)]
    )


def insert(text: str, block: str, first: str = BEGIN, last: str = END) -> str:
    """A document with the text between its two markers replaced."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(
            f"insert: expected text with the lines {first!r} and {last!r}, got neither or one."
        )
    return f"{before}{first}\n\n{block}\n\n{last}{after}"


def inserted(text: str, first: str = BEGIN, last: str = END) -> str:
    """What stands between the markers of a document."""
    return text.partition(first)[2].partition(last)[0].strip()


def update(document: Path, measured: dict[str, Any]) -> None:
    """Write the measured part into a document."""
    document.write_text(insert(document.read_text("utf-8"), render(measured)), "utf-8")
