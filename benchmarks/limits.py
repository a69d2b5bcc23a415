"""`python -m benchmarks.limits`: what binds the library in C, in docs/native.md.

Beside the time of a whole call stands what of it is spent in C, and the two floors of that: the
multiply-adds of the products at the rate that this processor reaches with nothing else to do, and a
copy of the features. What lies between the whole call and C is Python: checks, dispatch, autograd.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import RELEASED, SMALL, Case
from benchmarks.compare import environment
from benchmarks.inputs import build as inputs_of
from benchmarks.inputs import maps_read
from benchmarks.measure import interleaved
from benchmarks.operators import LIBRARY, OPERATORS, run
from benchmarks.report import ROOT, insert, key_of, name_of, number, table
from protocontrast.native import build, library

DOCUMENT = ROOT / "docs" / "native.md"
BEGIN = "<!-- limits: begin, written by `python -m benchmarks.limits` -->"
END = "<!-- limits: end -->"
REPETITIONS = 25
CASES = [
    Case("contrast", "features", 64),
    Case("contrast", "features", 64, dtype="bfloat16"),
    Case("contrast", "features", 256),
    Case("contrast", "features", 76, size=RELEASED, use="bicl"),
    Case("contrast", "features", 64, size=SMALL),
    Case("contrast, soft", "features", 256, size=(128, 112), use="proda, a quarter"),
    Case("bidirectional step", "both features", 64),
    Case("bidirectional step", "both features", 76, size=RELEASED, use="bicl"),
    Case("class_prototypes", "none", 64),
    Case("class_prototypes", "none", 64, dtype="bfloat16"),
]
PRODUCTS = {"contrast": 2, "contrast, soft": 3, "bidirectional step": 7, "class_prototypes": 0}
"""Per pixel, channel and class; a distance takes a subtraction beside its multiply-add. A step
takes one for labels, and of both domains those of a contrast and one for the means' gradient."""

# Sums that do not wait for each other, as many as the latency of a multiply-add asks for.
PEAK = """
typedef float vec __attribute__((vector_size(BYTES)));
void multiply_adds(const float *x, long rounds, float *out) {
    vec sum[10], by = x[0] - (vec){0};
    for (int i = 0; i < 10; i++) sum[i] = by + (float)i;
    for (long k = 0; k < rounds; k++)
        _Pragma("GCC unroll 10") for (int i = 0; i < 10; i++) sum[i] = sum[i] * by + by;
    for (int i = 0; i < 10; i++) out[i] = sum[i][0];
}
"""


def peak(rounds: int = 1_000_000) -> float:
    """Multiply-adds of float32 per ms in the widest variant: the best of several runs."""
    variant = build.variants()[library.widest()]
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "peak.c"), Path(folder, "peak.so")
        source.write_text(PEAK)
        flags = ["-O2", "-fPIC", "-shared", "-w", f"-DBYTES={variant.vector_bytes}", *variant.flags]
        command = [*build.compiler(), *flags, str(source), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True)
        multiply_adds = ctypes.CDLL(str(made)).multiply_adds
    given, out = (ctypes.c_float * 1)(0.5), (ctypes.c_float * 10)()
    call = partial(multiply_adds, given, ctypes.c_long(rounds), out)
    best = min(taken for taken, _ in interleaved({"": call}, 9)[""])
    return rounds * 10 * (variant.vector_bytes // 4) / best


class Timed:
    """The library, which adds up the ms that are spent in it."""

    def __init__(self, inner: ctypes.CDLL) -> None:
        self.inner, self.spent = inner, 0.0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.inner, name)

        def timed(argument: Any) -> Any:
            start = time.thread_time()
            try:
                return function(argument)
            finally:
                self.spent += 1e3 * (time.thread_time() - start)

        return timed


def measured(cases: Iterable[Case], repetitions: int) -> Iterator[dict[str, Any]]:
    """A row per case: medians of the whole call, of C within it, and of a copy, in ms."""
    found = library.loaded()
    timed = Timed(found[0])  # type: ignore[arg-type]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for case in cases:
            print(case, file=sys.stderr, flush=True)
            inputs, within = inputs_of(case), []
            maps = maps_read(case, inputs)

            def whole() -> None:
                timed.spent = 0.0
                run(OPERATORS[case.operator], LIBRARY, inputs)  # noqa: B023
                within.append(timed.spent)  # noqa: B023

            library.loaded = lambda: (timed, "")  # type: ignore[assignment]
            calls = {"whole": whole, "copy": lambda: [one.clone() for one in maps]}  # noqa: B023
            interleaved(calls, 3)
            within.clear()
            taken = interleaved(calls, repetitions)
            times = {name: statistics.median(ms for ms, _ in took) for name, took in taken.items()}
            height, width = case.size
            pairs = len(inputs.features) * height * width * case.channels * case.classes
            yield {
                **{name: getattr(case, name) for name in case.__dataclass_fields__},
                **times,
                "within": statistics.median(within),
                "products": pairs * PRODUCTS[case.operator],
            }
    finally:
        library.loaded = lambda: found  # type: ignore[assignment]
        torch.set_num_threads(before)


def render(rows: Iterable[dict[str, Any]], rate: float, where: dict[str, Any]) -> str:
    """The section of docs/native.md."""
    lines = []
    for row in rows:
        floor = row["products"] / rate
        shown = [row["whole"], row["within"], floor, row["copy"]]
        share = (floor + row["copy"]) / row["within"]
        lines.append([name_of(key_of(row)), *map(number, shown), f"{100 * share:.0f}%"])
    text = (
        f"{where['device']}, {where['native']}, one thread, load average at the start "
        f"{where['load_average']:.2f}; torch {where['torch']}, protocontrast at {where['commit']}, "
        f"{where['date']}. {rate / 1e6:.0f} thousand million multiply-adds of float32 a second at "
        f"most. Medians of thread CPU time in ms."
    )
    header = ["case", "whole call", "in C", "products at that rate", "copy", "both of C"]
    return f"{text}\n\n{table(header, lines)}"


def main(arguments: list[str] | None = None) -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--show", action="store_true", help="leave the document as it is")
    options = parser.parse_args(arguments)
    where, rate = environment(), peak()
    text = render(measured(CASES, options.repetitions), rate, where)
    if not options.show:
        DOCUMENT.write_text(insert(DOCUMENT.read_text("utf-8"), text, BEGIN, END), "utf-8")
    print(text)


if __name__ == "__main__":
    main()
