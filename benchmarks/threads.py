"""`python -m benchmarks.threads`: what a second thread saves, of the library's own two CPU paths.

Writes benchmarks/results/cpu_threads.json and its table in docs/performance.md. Times are those of
the clock on the wall, so nothing else may run.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.agreement import check_all
from benchmarks.cases import BOTH, Case
from benchmarks.compare import environment
from benchmarks.contenders import NUM_CLASSES
from benchmarks.inputs import build
from benchmarks.measure import interleaved
from benchmarks.operators import OPERATORS, OURS, run
from benchmarks.report import in_c, insert, key_of, name_of, number, table
from benchmarks.table import DOCUMENT, RESULTS

STORED = RESULTS.with_name("cpu_threads.json")
BEGIN = "<!-- threads: begin, written by `python -m benchmarks.threads` -->"
END = "<!-- threads: end -->"
THREADS = (1, 2)
REPETITIONS = 9
CASES = [
    Case("contrast", "features", 64),
    Case("contrast", "features", 256),
    Case("class_prototypes", "none", 64),
    Case("transfer_labels", "none", 64),
    Case("bidirectional step", BOTH, 64),
    Case("BiCL step", BOTH, 64),
    Case("upsampled CE", "features", NUM_CLASSES),
]


def measured(cases: Iterable[Case], repetitions: int) -> Iterator[dict[str, Any]]:
    """A row per case, path and number of threads, after both paths agree with float64."""
    before = torch.get_num_threads()
    for case in cases:
        print(case, file=sys.stderr, flush=True)
        operator, inputs = OPERATORS[case.operator], build(case)
        check_all(case, inputs, operator)
        calls = {
            who: partial(run, operator, who, inputs) for who in OURS if who in operator.contenders
        }
        for threads in THREADS:
            torch.set_num_threads(threads)
            for who, taken in interleaved(calls, repetitions, time.perf_counter).items():
                yield {
                    **{name: getattr(case, name) for name in case.__dataclass_fields__},
                    "contender": who,
                    "threads": threads,
                    "time_ms": round(statistics.median(took for took, _ in taken), 4),
                }
        torch.set_num_threads(before)


def render(stored: dict[str, Any]) -> str:
    """The section of docs/performance.md."""
    where, times = stored["environment"], {}
    for row in stored["rows"]:
        times.setdefault((key_of(row), row["contender"]), {})[row["threads"]] = row["time_ms"]
    lines = [
        [name_of(key), who, *(number(found[n]) for n in THREADS), number(found[1] / found[2], "x")]
        for (key, who), found in times.items()
    ]
    text = (
        f"{where['device']}, {where['cores']} cores, load average at the start "
        f"{where['load_average']:.2f}; torch {where['torch']}, protocontrast{in_c(where)} at "
        f"{where['commit']}, {where['date']}; medians of {stored['repetitions']} "
        "repetitions by the clock, default allocator."
    )
    header = ["case", "", "ms, 1 thread", "ms, 2 threads", "a second thread gains"]
    return f"{text}\n\n{table(header, lines)}"


def main(arguments: list[str] | None = None) -> None:
    """Measure, store and publish."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(arguments)
    stored = {
        "environment": environment(),
        "repetitions": REPETITIONS,
        "rows": list(measured(CASES, REPETITIONS)),
    }
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
    text = insert(DOCUMENT.read_text("utf-8"), render(stored), BEGIN, END)
    DOCUMENT.write_text(text, "utf-8")
    print(render(stored))


if __name__ == "__main__":
    main()
