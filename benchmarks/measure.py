"""Processor time and peak memory of all contenders of all cases, in this process's allocator.

`python -m benchmarks.measure OUTPUT` writes the rows as JSON; `benchmarks.compare` calls it once
per allocator setting, since a process reads that setting when it starts.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.agreement import check_all
from benchmarks.cases import CASES, Case, resized
from benchmarks.inputs import build, maps_read
from benchmarks.operators import COMPILED, LIBRARY, OPERATORS, Operator, run, with_compiled

MIB = 1024 * 1024
CHILD_SECONDS = 600.0
REPETITIONS = 9
FEWEST, SECONDS = 3, 1.0
"""Rounds of all contenders stop at this time, after this many at least."""
COPY = "copy of the features"
"""The floor: every map that a case reads, read and written once."""
STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")

Call = Callable[[], object]


def interleaved(
    calls: Mapping[str, Call], repetitions: int, clock: Callable[[], float] = time.thread_time
) -> dict[str, list[tuple[float, int]]]:
    """Thread CPU time in ms, or that of another clock, and page faults of every call.

    Each round runs all calls, beginning with another one, so that a disturbance or a slow clock
    hits all alike.
    """
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in calls}
    names = list(calls)
    gc.collect()
    gc.disable()
    try:
        for turn in range(repetitions):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                start = clock()
                result = calls[name]()
                stop = clock()
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
                taken[name].append((1e3 * (stop - start), faults))
                del result
    finally:
        gc.enable()
    return taken


def _status_kib(field: str) -> int:
    (line,) = (x for x in STATUS.read_text().splitlines() if x.startswith(f"{field}:"))
    return int(line.split()[1])


def _send_peak(call: Call, sender: Connection) -> None:
    # A forked child has none of its parent's worker threads, and would wait for them for ever.
    torch.set_num_threads(1)
    call()  # code pages and first-call caches are not the call's own
    gc.collect()
    # Freed memory that the allocator keeps would hide what the call needs.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    RESET.write_text("5")
    before = _status_kib("VmRSS")
    result = call()
    sender.send(1024 * (_status_kib("VmHWM") - before))
    del result


def peak_extra_bytes(call: Call) -> int | None:
    """Growth of peak resident memory during one call, results included.

    Measured in a forked child with the kernel's peak counter reset. None where the kernel has no
    such counter.
    """
    if not RESET.exists():
        return None
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_send_peak, args=(call, sender))
    with warnings.catch_warnings():
        # Python warns of forking beside threads; torch's idle ones hold no lock the call needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        # So that the child's collections look at its own objects only.
        gc.freeze()
        child.start()
        gc.unfreeze()
    sender.close()
    try:
        if not receiver.poll(CHILD_SECONDS):
            raise RuntimeError(f"expected a peak within {CHILD_SECONDS} s, got none.")
        peak: int = receiver.recv()
    except EOFError as error:
        child.join()
        status = f"exit status {child.exitcode}"
        raise RuntimeError(f"expected a peak from the child, got {status}.") from error
    finally:
        child.kill()
        child.join()
        receiver.close()
    return peak


def _spread(times: list[float]) -> float:
    """Distance of the quartiles; 0 for a single time."""
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return high - low


def _figures(
    taken: list[tuple[float, int]],
    peak: int | None,
    first_call_s: float | None,
    error: float | None,
) -> dict[str, Any]:
    times = [milliseconds for milliseconds, _ in taken]
    return {
        "repetitions": len(times),
        "time_ms": round(statistics.median(times), 3),
        "spread_ms": round(_spread(times), 3),
        "page_faults": statistics.median_low([faults for _, faults in taken]),
        "peak_mib": None if peak is None else round(peak / MIB, 2),
        "first_call_s": None if first_call_s is None else round(first_call_s, 3),
        "error": None if error is None else float(f"{error:.1e}"),
    }


def rows(
    case: Case, operator: Operator, repetitions: int, first: bool = True
) -> list[dict[str, Any]]:
    """One row per contender of a case and one of a copy.

    The `first` process that runs a case refuses contenders that do not agree and measures memory;
    another one runs the same code on the same inputs for its times alone.
    """
    inputs = build(case)
    agreement = check_all(case, inputs, operator) if first else {}
    calls: dict[str, Call] = {
        name: partial(run, operator, name, inputs) for name in operator.contenders
    }
    peaks = {name: peak_extra_bytes(call) if first else None for name, call in calls.items()}
    maps = maps_read(case, inputs)
    calls[COPY] = lambda: [given.clone() for given in maps]
    copied = sum(given.numel() * given.element_size() for given in maps)
    peaks[COPY] = copied if first else None
    interleaved(calls, 1)  # the first calls are slower than all others
    start = time.thread_time()
    interleaved(calls, 1)
    fitting = int(SECONDS / (time.thread_time() - start))
    repetitions = min(repetitions, max(FEWEST, fitting))
    described = asdict(case)
    del described["compiled"]
    found = []
    for name, taken in interleaved(calls, repetitions).items():
        first_call_s, error = agreement.get(name, (None, None))
        figures = _figures(taken, peaks[name], first_call_s, error)
        found.append({**described, "size": list(case.size), "contender": name, **figures})
    return with_ratios(found)


def measured(case: Case, compiles: bool, repetitions: int, first: bool) -> list[dict[str, Any]]:
    """Rows of a case; where torch.compile fails or disagrees, a line says so and it has no row."""
    operator = OPERATORS[case.operator]
    if compiles and case.compiled:
        try:
            return rows(case, with_compiled(operator), repetitions, first)
        except Exception as refused:
            # Inductor says in many ways that it cannot; a run of minutes is not lost over it.
            print(f"{case}: without {COMPILED}, {refused}", file=sys.stderr, flush=True)
    return rows(case, operator, repetitions, first)


def with_ratios(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one case with the library's gain over each contender, and all in copies.

    speedup = contender's time / library's; memory_ratio = library's peak / contender's;
    time_copies and peak_copies are the contender's time and peak over those of a copy.
    """
    (library,) = (row for row in found if row["contender"] == LIBRARY)
    (copy,) = (row for row in found if row["contender"] == COPY)
    for row in found:
        row["speedup"] = round(row["time_ms"] / library["time_ms"], 2)
        own, others = library["peak_mib"], row["peak_mib"]
        row["memory_ratio"] = round(own / others, 2) if own is not None and others else None
        row["time_copies"] = round(row["time_ms"] / copy["time_ms"], 2)
        row["peak_copies"] = None if others is None else round(others / copy["peak_mib"], 3)
    return found


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "128x256"."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected a size such as 128x256, got {text!r}.")
    return int(height), int(width)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Options that choose what is measured, shared with `benchmarks.compare`."""
    parser.add_argument("--size", type=parse_size, help="height x width in place of every case's")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument("--only", default="", help="cases whose name holds this, such as sepico")


def selection(options: argparse.Namespace) -> list[str]:
    """The options of `add_selection` as another process is given them."""
    words = ["--repetitions", str(options.repetitions), "--operators", *options.operators]
    if options.size is not None:
        words += ["--size", "{}x{}".format(*options.size)]
    return [*words, "--only", options.only]


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases that the options leave, in order, each once."""
    left = [case for case in CASES if case.operator in options.operators]
    left = [case for case in left if options.only in str(case)]
    return list(dict.fromkeys(resized(case, options.size) for case in left))


def main(arguments: list[str] | None = None) -> None:
    """Measure the cases and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--times", action="store_true", help="neither agreement nor memory")
    add_selection(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = chosen(options)
    found = []
    begin = time.perf_counter()
    for number, case in enumerate(cases, start=1):
        seconds = time.perf_counter() - begin
        print(f"{seconds:.0f} s, {number}/{len(cases)} {case}", file=sys.stderr, flush=True)
        settings = options.repetitions, not options.times
        found += measured(case, not options.no_compile, *settings)
    options.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
