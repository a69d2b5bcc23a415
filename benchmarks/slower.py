"""Where the library is slower than an alternative, and why."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.measure import COPY
from benchmarks.operators import COMPILED, IN_TORCH, LIBRARY
from benchmarks.report import CASE, DEFAULT, NO_FAULTS, Key, Measured, name_of, number, table

UNEXPLAINED = "not explained yet"
PAGE_FAULTS = (
    "page faults: glibc maps the same amount of memory anew for one and keeps it for another; with "
    "that removed ours is faster"
)
WITHIN_SPREAD = "equal: the medians are nearer to each other than the quartiles of either"


class Reason(NamedTuple):
    """Why, for cases and contenders with these values; an empty one is any."""

    why: str
    operator: str = ""
    against: tuple[str, ...] = ()
    layout: str = ""
    dtype: str = ""
    gradient: str = ""
    pixels: int = 0
    """At most so many per image; 0 is any."""
    of_torch: bool = False
    """Only where the library is plain torch."""

    def holds(self, key: Key, contender: str, in_torch: bool = True) -> bool:
        """Whether it says why the library is slower there."""
        case = dict(zip(CASE, key, strict=True))
        height, width = case["size"]
        return (
            (in_torch or not self.of_torch)
            and case["operator"].startswith(self.operator)
            and (not self.against or contender in self.against)
            and self.layout in ("", case["layout"])
            and self.dtype in ("", case["dtype"])
            and self.gradient in ("", case["gradient"])
            and (not self.pixels or height * width <= self.pixels)
        )


REASONS = [
    Reason(
        "717 pixels are left, whose pairs take 2 MB: a composition keeps them all, ours takes the "
        "products again in the backward, as it must where they do not fit",
        operator="pair contrast",
    ),
    Reason(
        "a call has a fixed price: checks of labels, an operator of its own with a gradient, small "
        "calls of torch; on a map of 24x48 that outlasts the work",
        pixels=24 * 48,
    ),
    Reason(
        "the one-hot labels are made again in the backward; a composition keeps them",
        operator="class_prototypes",
        of_torch=True,
        gradient="features",
    ),
    Reason(
        "where pixels lie one after another they are added to their class without a product; ours "
        "looks at every label's value first, and adds up in parts, whose sums keep more digits",
        operator="class_prototypes",
        layout="channels_last",
    ),
    Reason(
        "pixels are copied one after another and added row by row, without a product",
        operator="class_prototypes",
        against=("index_add",),
        of_torch=True,
    ),
    Reason(
        "products of bfloat16 numbers are taken in float32, which keeps their digits; a "
        "composition takes them in bfloat16, for which some processors have matrix units",
        dtype="bfloat16",
    ),
    Reason(
        "the same product with one-hot labels, in place; ours looks at every label's value and "
        "goes tile by tile, so it holds less",
        operator="class_prototypes",
        of_torch=True,
    ),
    Reason(
        "distances are taken from differences, which keep their digits near zero; `torch.cdist` "
        "expands the square into a product here",
        operator="contrast, soft",
        of_torch=True,
    ),
    Reason(
        "maps this small stay in cache with all temporaries, so reading them again is cheap; the "
        "arithmetic is the same, and ours pays for its tiles",
        against=("tuned eager",),
        pixels=92 * 92,
        of_torch=True,
    ),
    Reason(
        "the same products; what lies between them is one fused loop of vector code there, and a "
        "call of torch per pass over a tile here",
        against=(COMPILED,),
        of_torch=True,
    ),
    Reason(
        "class sums taken in the target's pass cost what they cost apart: at this size products "
        "bind, not reads",
        operator="BiCL step",
    ),
]
"""The first that holds is shown."""


def slower(measured: Measured) -> Iterator[tuple[Key, str, list[float | None]]]:
    """Case, contender and gains below 1 under either allocator."""
    for key, contenders in measured.cases.items():
        for contender in contenders:
            if contender in (LIBRARY, COPY):
                continue
            gains = [measured.value(a, key, contender, "speedup") for a in (DEFAULT, NO_FAULTS)]
            if any(gain is not None and gain < 1 for gain in gains):
                yield key, contender, gains


def _within_spread(measured: Measured, key: Key, contender: str) -> bool:
    """Whether medians are nearer to each other than the quartiles of either, where ours is slower.

    The noise of one contender alone would excuse any gap.
    """
    for allocator in (DEFAULT, NO_FAULTS):
        own, other = (measured(allocator, key, who) for who in (LIBRARY, contender))
        if own is None or other is None:
            continue
        spread = min(own["spread_ms"], other["spread_ms"])
        if own["time_ms"] - other["time_ms"] > spread:
            return False
    return True


def more_page_faults(measured: Measured, key: Key, contender: str) -> bool:
    """Whether ours took more of them than a contender."""
    own, other = (measured.value(DEFAULT, key, who, "page_faults") for who in (LIBRARY, contender))
    return own is not None and other is not None and own > other


def reason(measured: Measured, key: Key, contender: str) -> str:
    """Why the library is slower there."""
    in_torch = IN_TORCH not in measured.cases[key]
    for one in REASONS:
        if one.holds(key, contender, in_torch):
            return one.why
    if _within_spread(measured, key, contender):
        return WITHIN_SPREAD
    without = measured.value(NO_FAULTS, key, contender, "speedup") or 0
    by_faults = without >= 1 and more_page_faults(measured, key, contender)
    return PAGE_FAULTS if by_faults else UNEXPLAINED


def explained(measured: Measured) -> str:
    """A row for every reason: the cases and contenders that are faster than the library."""
    found: dict[str, list[str]] = {}
    for key, contender, gains in slower(measured):
        shown = ", ".join(number(gain, "x") for gain in gains)
        where = f"{name_of(key)}: {contender} {shown}"
        found.setdefault(reason(measured, key, contender), []).append(where)
    header = ["why", "where, and what ours gains there, before and after page faults are removed"]
    lines = [[why, "<br>".join(places)] for why, places in found.items()]
    return table(header, lines) if lines else "Nowhere in this run."
