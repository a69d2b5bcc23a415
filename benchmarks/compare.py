"""`python -m benchmarks.compare`: the library beside its alternatives, interleaved, in one table.

Runs `benchmarks.measure` in one process per allocator setting, prints a Markdown table, writes
benchmarks/results/cpu.json and the table in docs/performance.md. With another `--output` the
document is left alone.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import protocontrast
from benchmarks.cases import IGNORED_SHARE, IMAGES, OPERATORS
from benchmarks.contenders import NUM_CLASSES
from benchmarks.measure import REPETITIONS, add_selection
from benchmarks.report import DEFAULT, NO_FAULTS, render, update

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "cpu.json"
DOCUMENT = ROOT / "docs" / "performance.md"
GIB_4 = str(4 * 1024**3)

# With glibc's defaults every large tensor is mapped and unmapped again, and the page faults of that
# are charged to whoever allocates more.
ALLOCATORS = {
    DEFAULT: {},
    NO_FAULTS: {"MALLOC_MMAP_THRESHOLD_": GIB_4, "MALLOC_TRIM_THRESHOLD_": GIB_4},
}


def _first_line(path: str, field: str) -> str:
    """Value of the first "field : value" line of a /proc file; empty if there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(field)]
    return values[0] if values else ""


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text.partition("[")[2].partition("]")[0]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def commit() -> str:
    """The commit, and whether what is measured differs from it."""
    changed = _git("status", "--porcelain", "--", "protocontrast", "benchmarks/*.py")
    return _git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def environment() -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    device = _first_line("/proc/cpuinfo", "model name") or platform.processor()
    return {
        "device": device or platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load_average": round(os.getloadavg()[0], 2),
        "libc": " ".join(platform.libc_ver()),
        "allocators": ALLOCATORS,
        "huge_pages": _huge_pages(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "protocontrast": protocontrast.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _measure(settings: dict[str, str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one allocator setting, from a process of its own."""
    clean = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    selection = ["--repetitions", str(options.repetitions), "--operators", *options.operators]
    if options.size is not None:
        selection += ["--size", "{}x{}".format(*options.size)]
    if options.compiled:
        selection.append("--compiled")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.measure", str(output), *selection]
        single = {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=ROOT, env=clean | settings | single)
        rows: list[dict[str, Any]] = json.loads(output.read_text())
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_selection(parser)
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the numbers go, JSON")
    options = parser.parse_args(arguments)
    reduced = options.size is not None or options.repetitions < REPETITIONS
    reduced = reduced or set(options.operators) != set(OPERATORS)
    publishes = options.output.resolve() == RESULTS
    if publishes and reduced:
        parser.error(
            f"expected --output elsewhere than {RESULTS.relative_to(ROOT)} for a run of another "
            "size, with fewer repetitions or with fewer operators, got the published file."
        )
    measured: dict[str, Any] = {
        "environment": environment(),
        "images": IMAGES,
        "num_classes": NUM_CLASSES,
        "ignored_share": IGNORED_SHARE,
        "repetitions": options.repetitions,
        "rows": [],
    }
    for allocator, settings in ALLOCATORS.items():
        if settings and platform.libc_ver()[0] != "glibc":
            continue
        print(f"allocator: {allocator}", file=sys.stderr)
        rows = _measure(settings, options)
        measured["rows"] += [{"allocator": allocator, **row} for row in rows]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(measured, indent=1) + "\n")
    if publishes:
        update(DOCUMENT, measured)
    print(render(measured))


if __name__ == "__main__":
    main()
