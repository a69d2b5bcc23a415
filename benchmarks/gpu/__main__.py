"""`python -m benchmarks.gpu`: measure on the current CUDA device, write JSON and the tables.

Results are saved after every case. Without `--output` they go to benchmarks/results/<device>.json
and into docs/performance.md.
"""

import argparse
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import store, tables
from benchmarks.gpu.cases import PASSES, Case, cases
from benchmarks.gpu.measure import rows, step_rows

NO_DEVICE = "benchmarks.gpu: expected a CUDA device, got none; nothing was measured."
NO_TRITON = "benchmarks.gpu: expected triton to be installed, got none; nothing was measured."


def positive(text: str) -> float:
    """Minutes: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, got {text!r}.")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    options.add_argument("--minutes", type=positive, default=30.0, help="begin no case after this")
    options.add_argument("--operators", nargs="+", choices=PASSES, default=list(PASSES))
    options.add_argument("--no-compiled", action="store_true", help="leave torch.compile out")
    options.add_argument("--output", type=Path, help="where the numbers go, JSON")
    options.add_argument("--tables", action="store_true", help="only write the tables anew")
    return options


def what_is_missing() -> str:
    """Why nothing can be measured here, or ""."""
    if not torch.cuda.is_available():
        return NO_DEVICE
    return "" if find_spec("triton") else NO_TRITON


def chosen(operators: list[str]) -> list[Case]:
    """The cases of some operators, in order."""
    return [case for case in cases() if case.operator in operators]


class Record:
    """The measurements so far; every addition is saved at once."""

    def __init__(self, path: Path, publishes: bool, environment: dict[str, Any]) -> None:
        self.path, self.publishes = path, publishes
        self.measured: dict[str, Any] = {
            "environment": environment,
            "complete": False,
            "limits": {},
            "step": [],
            "rows": [],
        }

    def add(self, **parts: Any) -> None:
        """Lists grow, everything else is replaced."""
        for name, value in parts.items():
            before = self.measured[name]
            self.measured[name] = before + value if isinstance(before, list) else value
        store.save(self.path, self.measured)
        if self.publishes:
            tables.update()


def measure(record: Record, wanted: list[Case], minutes: float, compiled: bool) -> None:
    """Everything on the current device, until time runs out."""
    from benchmarks.gpu.clock import Clock
    from benchmarks.gpu.probes import limits

    # Backwards are captured and replayed, so their saved tensors must outlive one of them.
    torch._functorch.config.donated_buffer = False
    end = time.monotonic() + 60 * minutes
    device = torch.device("cuda", torch.cuda.current_device())
    clock = Clock()
    found = limits(clock, device)
    record.add(limits=found, step=step_rows(clock, device, found))
    for number, case in enumerate(wanted, start=1):
        if time.monotonic() > end:
            print(f"{len(wanted) - number + 1} cases left out: time ran out.", file=sys.stderr)
            return
        print(f"{number}/{len(wanted)} {case}", file=sys.stderr, flush=True)
        record.add(rows=rows(clock, case, device, found, compiled))
    record.add(complete=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the tables; 1 if a result was wrong or did not fit."""
    options = parser().parse_args(arguments)
    if options.tables:
        tables.update()
        return 0
    missing = what_is_missing()
    if missing:
        print(missing)
        return 0
    import triton

    device = torch.cuda.get_device_name()
    path = options.output or store.path_of(device)
    versions = {"triton": triton.__version__, "cuda": str(torch.version.cuda)}
    record = Record(path, options.output is None, store.environment(device, versions))
    measure(record, chosen(options.operators), options.minutes, not options.no_compiled)
    print(tables.render(record.measured))
    return int(any("failure" in row for row in record.measured["rows"]))


if __name__ == "__main__":
    sys.exit(main())
