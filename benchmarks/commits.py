"""`python -m benchmarks.commits BASE`: this working tree's operators beside those of a commit.

Both run the same cases, written here, in processes that take turns, so that a slow minute of the
machine hits both. Prints how much faster this tree is; nothing is stored.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from benchmarks.inputs import build
from benchmarks.measure import add_selection, chosen, interleaved, selection
from benchmarks.operators import LIBRARY, OPERATORS, run
from benchmarks.report import number, table

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
Times = dict[str, list[float]]


def library_times(options: argparse.Namespace) -> Times:
    """Thread CPU time in ms of the library's part of every case, in this process."""
    torch.set_num_threads(1)
    found: Times = {}
    for case in chosen(options):
        call = partial(run, OPERATORS[case.operator], LIBRARY, build(case))
        call()  # the first call is slower than the rest
        taken = interleaved({LIBRARY: call}, options.repetitions)[LIBRARY]
        found[str(case)] = [milliseconds for milliseconds, _ in taken]
    return found


@contextmanager
def tree_of(base: str) -> Iterator[Path]:
    """A checkout of a commit with the benchmarks of this tree, removed afterwards.

    Raises:
        ValueError: there is no such commit.
    """
    git = ["git", "-C", str(ROOT)]
    known = subprocess.run(
        [*git, "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"],
        capture_output=True,
        check=False,
    )
    if known.returncode:
        raise ValueError(
            f"bench-compare: expected BASE to be a commit, got {base!r}. Hint: git log shows some."
        )
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        subprocess.run([*git, "worktree", "add", "--detach", "-q", str(tree), base], check=True)
        try:
            shutil.rmtree(tree / "benchmarks", ignore_errors=True)
            shutil.copytree(ROOT / "benchmarks", tree / "benchmarks")
            yield tree
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def times_in(tree: Path, words: list[str]) -> Times:
    """What a process of its own measures with the library of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "times.json"
        command = [sys.executable, "-m", "benchmarks.commits", "--write", str(output), *words]
        single = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
        subprocess.run(command, check=True, cwd=tree, env=single)
        found: Times = json.loads(output.read_text())
    return found


def comparison(base: list[Times], own: list[Times]) -> str:
    """A Markdown table of both medians and their ratio, case by case."""
    lines = []
    for case in own[0]:
        before, now = (
            statistics.median([time for times in rounds for time in times[case]])
            for rounds in (base, own)
        )
        lines.append([case, number(before), number(now), number(before / now, "x")])
    return table(["case", "base, ms", "this tree, ms", "speed-up"], lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base", nargs="?", help="a commit, branch or tag")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each side")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    add_selection(parser)
    options = parser.parse_args(arguments)
    if options.write:
        options.write.write_text(json.dumps(library_times(options)))
        return
    if not options.base:
        hint = "Hint: make bench-compare BASE=HEAD~1."
        parser.error(f"expected a commit to compare with, got none. {hint}")
    words = selection(options)
    sides: dict[str, list[Times]] = {"base": [], "own": []}
    try:
        with tree_of(options.base) as tree:
            places = {"base": tree, "own": ROOT}
            for turn in range(options.rounds):
                for side in sorted(places, reverse=turn % 2 == 1):
                    print(f"round {turn + 1} of {options.rounds}: {side}", file=sys.stderr)
                    sides[side].append(times_in(places[side], words))
    except ValueError as error:
        sys.exit(str(error))
    print(comparison(sides["base"], sides["own"]))


if __name__ == "__main__":
    main()
