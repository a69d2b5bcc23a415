"""The budget file: registers of every case, and bytes of stack where spilling is allowed.

`python -m tests.ahead_of_time.budget` compiles every case (many minutes; `--fast`: one case per
kernel and target; `--missing`: those without a line; names of kernels: theirs) and rewrites its
line. A case that is wrong in a way that no budget excuses is told and gets none.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import triton

from tests.ahead_of_time.cases import FAST, SLOW, Case
from tests.ahead_of_time.gate import Budget, objections, reason_to_spill
from tests.ahead_of_time.resources import Resources, measured_case

FILE = Path(__file__).with_name("budget.json")
Table = dict[str, dict[str, dict[str, int]]]


@contextmanager
def compiling(cases: Iterable[Case]) -> Iterator[dict[Case, Future[Resources]]]:
    """Resources of each case, compiled in as many processes as there are cores, at most 8."""
    cases = list(cases)
    processes = max(1, min(8, os.cpu_count() or 1, len(cases)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield {case: pool.submit(measured_case, case) for case in cases}
        finally:
            pool.shutdown(cancel_futures=True)


def read() -> dict[Case, Budget]:
    """The budget of each case that the file knows."""
    text = json.loads(FILE.read_text("utf-8"))
    registers, stack = text["registers"], text["stack"]
    found = {}
    for case in SLOW:
        number = registers.get(case.target, {}).get(case.kernel, {}).get(case.name)
        if number is not None:
            spilled = stack.get(case.target, {}).get(case.kernel, {}).get(case.name, {})
            found[case] = Budget(number, spilled.get("bytes", 0))
    return found


def of_another_triton(installed: str = triton.__version__) -> str | None:
    """Why kernels cannot be held to the file, which another triton wrote; None where none did.

    Releases allocate registers as they like; a build's own suffix, such as "+rocm", is no release.
    """
    wanted = json.loads(FILE.read_text("utf-8"))["triton"]
    if installed.partition("+")[0] == wanted:
        return None
    return f"the budget holds the registers of triton {wanted}, and {installed} is installed"


def names() -> set[tuple[str, str, str]]:
    """Target, kernel and name of every case in the file."""
    registers = json.loads(FILE.read_text("utf-8"))["registers"]
    return {
        (target, kernel, name)
        for target, kernels in registers.items()
        for kernel, cases in kernels.items()
        for name in cases
    }


def as_json(results: dict[Case, Resources]) -> str:
    """The file's text: target -> kernel -> case -> number; stack with the reason for it."""
    registers: Table = {}
    stack: dict[str, dict[str, dict[str, dict[str, object]]]] = {}
    for case, found in results.items():
        registers.setdefault(case.target, {}).setdefault(case.kernel, {})[case.name] = (
            found.registers
        )
        if found.stack:
            entry = {"bytes": found.stack, "reason": reason_to_spill(case)}
            stack.setdefault(case.target, {}).setdefault(case.kernel, {})[case.name] = entry
    text = {"triton": triton.__version__, "registers": registers, "stack": stack}
    return json.dumps(text, indent=1) + "\n"


def store(results: dict[Case, Resources]) -> None:
    """Add cases to the file, in the order of `SLOW`, and drop those that are no longer in it."""
    text = json.loads(as_json(results))
    before = json.loads(FILE.read_text("utf-8"))
    merged: dict[str, Table] = {"registers": {}, "stack": {}}
    for case in SLOW:
        for part, table in merged.items():
            source = text if case in results else before
            entry = source[part].get(case.target, {}).get(case.kernel, {}).get(case.name)
            if entry is not None:
                table.setdefault(case.target, {}).setdefault(case.kernel, {})[case.name] = entry
    FILE.write_text(json.dumps({"triton": triton.__version__, **merged}, indent=1) + "\n", "utf-8")


def main() -> int:
    """Write the lines of the cases without objections; 1 and a list of sentences for the others."""
    cases = FAST if "--fast" in sys.argv[1:] else SLOW
    kernels = {word for word in sys.argv[1:] if not word.startswith("--")}
    if kernels:
        cases = tuple(case for case in cases if case.kernel in kernels)
    if "--missing" in sys.argv[1:]:
        known = read()
        cases = tuple(case for case in cases if case not in known)
    results: dict[Case, Resources] = {}
    wrong: list[str] = []
    with compiling(cases) as futures:
        for number, (case, future) in enumerate(futures.items(), 1):
            print(f"\r{number} of {len(cases)}", end="", file=sys.stderr, flush=True)
            try:
                found = future.result()
            except RuntimeError as error:
                wrong.append(f"{case}: expected to compile, got {error}.")
                continue
            sentences = objections(case, found, Budget(found.registers, found.stack))
            wrong += sentences
            if not sentences:
                results[case] = found
                store(results)
    store(results)
    print("\n" + "\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
