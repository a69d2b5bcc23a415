"""Measurements as Markdown: numbers, tables, and their place between two lines of a document."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import COPY
from benchmarks.operators import LIBRARY

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = "default"
NO_FAULTS = "page faults removed"

Row = dict[str, Any]
Key = tuple[Any, ...]
CASE = ("use", "operator", "gradient", "channels", "classes", "size", "layout", "dtype")
"""The fields that name a case."""


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


def in_c(where: Row) -> str:
    """ " in C for " the instruction set of a measured library, "" where it was plain torch."""
    native = where.get("native", "").partition("usable: ")[2]
    return f" in C for {native}" if native else ""


def key_of(row: Row) -> Key:
    """What all rows of a case share."""
    return tuple(tuple(row[f]) if f == "size" else row[f] for f in CASE)


def name_of(key: Key) -> str:
    """A case in a few words; what most cases share is left out."""
    case = dict(zip(CASE, key, strict=True))
    named = f"{case['use']}: " if case["use"] else ""
    gradient = "" if case["gradient"] == "none" else f", gradient: {case['gradient']}"
    parts = [f"D = {case['channels']}", "{}x{}".format(*case["size"])]
    parts += [f"C = {case['classes']}"] * (case["classes"] != 19)
    parts += [case["layout"]] * (case["layout"] != "NCHW")
    parts += [case["dtype"]] * (case["dtype"] != "float32")
    return f"{named}{case['operator']}{gradient}, {', '.join(parts)}"


class Measured:
    """Rows by allocator, case and contender."""

    def __init__(self, rows: list[Row]) -> None:
        self.found = {(r["allocator"], key_of(r), r["contender"]): r for r in rows}
        self.cases = {
            key: list(dict.fromkeys(r["contender"] for r in rows if key_of(r) == key))
            for key in dict.fromkeys(map(key_of, rows))
        }
        """Contenders of every case, as measured."""

    def __call__(self, allocator: str, key: Key, contender: str) -> Row | None:
        return self.found.get((allocator, key, contender))

    def value(self, allocator: str, key: Key, contender: str, field: str) -> Any:
        """A figure, None where there is none."""
        row = self(allocator, key, contender)
        return None if row is None else row[field]


def _time(row: Row | None) -> str:
    return "-" if row is None else f"{number(row['time_ms'])} ({number(row['spread_ms'])})"


def _gain(row: Row | None) -> str:
    if row is None or row["contender"] in (LIBRARY, COPY):
        return ""
    return number(row["speedup"], "x")


def comparison(measured: Measured) -> str:
    """One line per case and contender, a copy of the features among them."""
    lines = []
    for key, contenders in measured.cases.items():
        for contender in contenders:
            row, other = (measured(a, key, contender) for a in (DEFAULT, NO_FAULTS))
            if row is None:
                continue
            checked = contender != COPY
            lines.append(
                [
                    name_of(key), contender,
                    _time(row), _gain(row), _time(other), _gain(other),
                    number(None if other is None else other["time_copies"]),
                    number(row["peak_mib"]), number(row["peak_copies"]),
                    f"{row['error']:.0e}" if checked else "",
                    number(row["first_call_s"]) if checked else "",
                ]
            )  # fmt: skip
    header = [
        "case", "contender", "ms", "ours gains", "ms, no page faults", "ours gains", "in copies",
        "MiB", "in copies", "error", "first call, s",
    ]  # fmt: skip
    return table(header, lines)


def insert(text: str, block: str, first: str, last: str) -> str:
    """A document with the text between its two markers replaced."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(
            f"insert: expected text with the lines {first!r} and {last!r}, got neither or one."
        )
    return f"{before}{first}\n\n{block}\n\n{last}{after}"


def inserted(text: str, first: str, last: str) -> str:
    """What stands between the markers of a document."""
    return text.partition(first)[2].partition(last)[0].strip()
