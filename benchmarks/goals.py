"""What was asked for, beside what was measured."""

from collections.abc import Collection
from typing import Any, NamedTuple

from benchmarks.cases import BOTH, LARGE, PROTOTYPES, RELEASED, SMALL, UPSAMPLED
from benchmarks.contenders import NUM_CLASSES
from benchmarks.measure import COPY
from benchmarks.operators import COMPILED, IN_TORCH, LIBRARY
from benchmarks.report import DEFAULT, NO_FAULTS, Key, Measured, name_of, number, table
from benchmarks.slower import Reason, more_page_faults

ASKED = {
    "speedup": "at least {:g} times as fast",
    "memory_ratio": "at most {:g} of its peak",
    "time_copies": "at most {:g} of its time",
    "peak_copies": "at most {:g} of its memory",
    "peak_mib": "at most {:g} MiB",
    "error": "an error of at most {:g}",
}
"""Field of a row -> the sentence; only the first is a least value."""
ALONE = ""


class Goal(NamedTuple):
    """A bound of one figure; `without_faults` where another one holds without page faults.

    `in_c` is asked for in place of both where the library is computed in C, with AVX-512; without
    a `bound`, there alone.
    """

    operator: str
    gradient: str
    channels: int
    against: str
    field: str
    bound: float | None
    without_faults: float | None = None
    layout: str = "NCHW"
    dtype: str = "float32"
    size: tuple[int, int] = LARGE
    use: str = ""
    in_c: float | None = None

    @property
    def key(self) -> Key:
        """The case it is about."""
        return (
            self.use, self.operator, self.gradient, self.channels, NUM_CLASSES, self.size,
            self.layout, self.dtype,
        )  # fmt: skip

    @property
    def subject(self) -> str:
        """Whose row has the figure: the gain over a contender stands in the contender's."""
        return self.against if self.field in ("speedup", "memory_ratio") else LIBRARY


CONTRAST, MEANS, TRANSFER, STEP = (
    "contrast", "class_prototypes", "transfer_labels", "bidirectional step",
)  # fmt: skip
GOALS = [
    *(
        goal
        for channels in (64, 256)
        for goal in (
            Goal(CONTRAST, "features", channels, "eager", "speedup", 6, 4.5, in_c=10),
            Goal(CONTRAST, "features", channels, COMPILED, "speedup", 1.3, in_c=2.5),
            Goal(CONTRAST, "features", channels, COPY, "time_copies", 5.5),
            Goal(CONTRAST, "features", channels, COPY, "peak_copies", 1.2),
            Goal(CONTRAST, "features", channels, "eager", "memory_ratio", 0.3),
            Goal(CONTRAST, PROTOTYPES, channels, "eager", "speedup", 5),
            Goal(CONTRAST, PROTOTYPES, channels, COPY, "time_copies", 7),
            Goal(CONTRAST, PROTOTYPES, channels, COPY, "peak_copies", 1.2),
            Goal(MEANS, "none", channels, "one-hot einsum", "speedup", 3.2),
            Goal(MEANS, "none", channels, "index_add", "speedup", 2.7),
            Goal(MEANS, "none", channels, "one-hot bmm", "speedup", 3, in_c=1.5),
            Goal(MEANS, "none", channels, COPY, "time_copies", 1.7),
            Goal(MEANS, "none", channels, ALONE, "peak_mib", 1),
            Goal(TRANSFER, "none", channels, "eager", "speedup", 3.7),
            Goal(TRANSFER, "none", channels, COPY, "time_copies", 3),
            Goal(TRANSFER, "none", channels, ALONE, "peak_mib", 3),
            Goal(STEP, BOTH, channels, "eager", "speedup", 5, in_c=6),
            Goal(STEP, BOTH, channels, "tuned eager", "speedup", 4.8),
            Goal(STEP, BOTH, channels, COPY, "time_copies", 9.5),
            Goal(STEP, BOTH, channels, COPY, "peak_copies", 1.35),
        )
    ),
    *(Goal(CONTRAST, "features", channels, ALONE, "error", 1e-6) for channels in (64, 256)),
    Goal(CONTRAST, "features", 64, ALONE, "error", 4e-3, dtype="bfloat16"),
    Goal(MEANS, "none", 64, ALONE, "error", 1e-6, dtype="bfloat16"),
    Goal(CONTRAST, PROTOTYPES, 64, COMPILED, "speedup", 1.25),
    Goal(CONTRAST, "features", 64, COMPILED, "speedup", 3, dtype="bfloat16"),
    Goal(MEANS, "none", 64, COMPILED, "speedup", 1.8),
    Goal(MEANS, "none", 64, "one-hot einsum", "speedup", 2.4, layout="channels_last"),
    Goal(MEANS, "none", 64, "index_add", "speedup", 1.7, layout="channels_last"),
    Goal(TRANSFER, "none", 64, COMPILED, "speedup", 1.6, in_c=2),
    Goal(TRANSFER, "none", 64, "eager", "speedup", 1.6, layout="channels_last"),
    Goal(STEP, BOTH, 64, COMPILED, "speedup", 1.5, in_c=2.5),
    *(
        Goal(CONTRAST, "features", 76, against, "speedup", None, size=RELEASED, use="bicl", in_c=c)
        for against, c in (("eager", 10), (COMPILED, 2.5))
    ),
    *(
        Goal(CONTRAST, "features", 64, against, "speedup", None, size=SMALL, in_c=c)
        for against, c in (("eager", 4), ("tuned eager", 1))
    ),
    Goal(
        f"{STEP}, by class", BOTH, 76, "passes by class", "speedup", 15, size=RELEASED, use="bicl"
    ),
    Goal(STEP, BOTH, 76, "eager", "speedup", 4.3, size=RELEASED, use="bicl"),
    Goal(STEP, BOTH, 76, "tuned eager", "speedup", 3.8, size=RELEASED, use="bicl"),
    Goal(
        "released step", BOTH, 76, "passes by class", "speedup", 10, size=RELEASED, use="bicl"
    ),
    *(
        goal
        for name in UPSAMPLED
        for goal in (
            Goal(name, "features", NUM_CLASSES, "eager", "speedup", 3.9, in_c=8),
            Goal(name, "features", NUM_CLASSES, "eager", "memory_ratio", 0.1),
            Goal(name, "features", NUM_CLASSES, ALONE, "peak_mib", 25),
            Goal(
                name, "features", NUM_CLASSES, "eager", "speedup", 2.5, size=RELEASED, use="bicl"
            ),
        )
    ),
    Goal("upsampled CE", "features", NUM_CLASSES, COMPILED, "speedup", 2.6),
    Goal(
        "upsampled CE", "features", NUM_CLASSES, "eager", "speedup", 3.2, layout="channels_last"
    ),
]  # fmt: skip


PAGE_FAULTS = "page faults, of which ours took more; with those removed it is met"
BINDS = [
    Reason(
        "more than half of the call lies outside C: checks and autograd", pixels=SMALL[0] * SMALL[1]
    ),
    Reason(
        "products and a copy of the features alone leave no room for Python",
        operator=CONTRAST,
        pixels=RELEASED[0] * RELEASED[1],
    ),
    Reason(
        "products, which are taken in float32; that the features are half as large helps what "
        "is bound by memory",
        operator=CONTRAST,
        dtype="bfloat16",
    ),
    Reason(
        "seven products, and passes over both maps: the source's means are taken twice, since the "
        "labels need them first",
        operator=STEP,
    ),
    Reason("a read, and a transposition of every tile into rows", operator=MEANS),
    Reason("exponentials, one for every label and class", operator="upsampled CE"),
]
"""What binds C where it misses a goal; the first that holds is shown. docs/native.md says more."""


def _binding(measured: Measured, goal: Goal, bound: float) -> str:
    """Why a goal is missed, where that is known."""
    without = measured.value(NO_FAULTS, goal.key, goal.subject, goal.field)
    met = _verdict(without, goal, bound).endswith(", met")
    if met and more_page_faults(measured, goal.key, goal.against):
        return PAGE_FAULTS
    if IN_TORCH not in measured.cases.get(goal.key, ()):
        return ""
    return next((one.why for one in BINDS if one.holds(goal.key, goal.against, False)), "")


def _verdict(value: float | None, goal: Goal, bound: float) -> str:
    if value is None:
        return "-"
    met = value >= bound if goal.field == "speedup" else value <= bound
    shown = f"{value:.0e}" if goal.field == "error" else number(value)
    return f"{shown}, {'met' if met else 'missed'}"


def _bounds(goal: Goal, contenders: Collection[str]) -> list[float | None]:
    """With the default allocator, and without page faults."""
    if goal.in_c is not None and IN_TORCH in contenders:
        return [goal.in_c, goal.in_c]
    return [goal.bound, goal.without_faults or goal.bound]


def goals(measured: Measured) -> str:
    """A line per goal with its verdict under both allocators."""
    lines: list[list[Any]] = []
    for goal in sorted(GOALS, key=lambda goal: (goal.key[1:], goal.against, goal.field)):
        bounds = [b for b in _bounds(goal, measured.cases.get(goal.key, ())) if b is not None]
        if not bounds:
            continue
        verdicts = [
            _verdict(measured.value(allocator, goal.key, goal.subject, goal.field), goal, bound)
            for allocator, bound in zip((DEFAULT, NO_FAULTS), bounds, strict=True)
        ]
        asked = ASKED[goal.field].format(bounds[0])
        asked += f"; {bounds[1]:g}" if bounds[1] != bounds[0] else ""
        missed = any(verdict.endswith("missed") for verdict in verdicts)
        why = _binding(measured, goal, bounds[1]) if missed else ""
        lines.append([name_of(goal.key), goal.against, asked, *verdicts, why])
    header = ["case", "against", "asked for", "default allocator", "page faults removed"]
    header.append("what binds it")
    return table(header, lines)
