"""Where the library is slower than an alternative, and why."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.cases import SMALL
from benchmarks.measure import COPY
from benchmarks.operators import LIBRARY
from benchmarks.report import CASE, DEFAULT, NO_FAULTS, Key, Measured, name_of, number, table

UNEXPLAINED = "not explained yet"


class Reason(NamedTuple):
    """Why, for cases and contenders with these values; an empty one is any."""

    why: str
    operator: str = ""
    against: tuple[str, ...] = ()
    layout: str = ""
    gradient: str = ""
    small: bool = False

    def holds(self, key: Key, contender: str) -> bool:
        """Whether it says why the library is slower there."""
        case = dict(zip(CASE, key, strict=True))
        return (
            case["operator"].startswith(self.operator)
            and (not self.against or contender in self.against)
            and self.layout in ("", case["layout"])
            and self.gradient in ("", case["gradient"])
            and (not self.small or case["size"] == SMALL)
        )


REASONS = [
    Reason(
        "the fixed price of a call: checks of labels, an operator with a gradient of its own, a "
        "dozen small calls of torch; on a map of 1 152 pixels that outlasts the work",
        small=True,
    ),
]
"""The first that holds is shown."""


def reason(key: Key, contender: str) -> str:
    """Why the library is slower there."""
    fitting = (one.why for one in REASONS if one.holds(key, contender))
    return next(fitting, UNEXPLAINED)


def slower(measured: Measured) -> Iterator[tuple[Key, str, list[float | None]]]:
    """Case, contender and gains below 1 under either allocator."""
    for key, contenders in measured.cases.items():
        for contender in contenders:
            if contender in (LIBRARY, COPY):
                continue
            gains = [measured.value(a, key, contender, "speedup") for a in (DEFAULT, NO_FAULTS)]
            if any(gain is not None and gain < 1 for gain in gains):
                yield key, contender, gains


def explained(measured: Measured) -> str:
    """A line for every case and contender that is faster than the library."""
    lines = [
        [name_of(key), contender, *(number(g, "x") for g in gains), reason(key, contender)]
        for key, contender, gains in slower(measured)
    ]
    header = ["case", "faster", "ours gains", "no page faults", "why"]
    return table(header, lines) if lines else "Nowhere in this run."
