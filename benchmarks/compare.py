"""`python -m benchmarks.compare`: the library beside its alternatives, interleaved, in one table.

Runs `benchmarks.measure` in one process per allocator setting, prints Markdown, writes
benchmarks/results/cpu.json and what `benchmarks.table` makes of it. A run of a part, or with
another `--output`, leaves both alone.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import protocontrast
from benchmarks.cases import IMAGES
from benchmarks.inputs import IGNORED_SHARE
from benchmarks.measure import FEWEST, REPETITIONS, add_selection, selection
from benchmarks.operators import OPERATORS
from benchmarks.report import DEFAULT, NO_FAULTS, ROOT
from benchmarks.table import RESULTS, publish, render

QUICK_REPETITIONS = 3
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


def compiler() -> str:
    """The C++ compiler that torch.compile would find, and its version; "none" if there is none."""
    for name in filter(None, [os.environ.get("CXX"), "g++", "clang++"]):
        if shutil.which(name):
            command = [name, "--version"]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            return said.partition("\n")[0] or name
    return "none"


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
        "compiler": compiler(),
        "native": protocontrast.backends()["native"],
        "protocontrast": protocontrast.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _measure(
    settings: dict[str, str], options: argparse.Namespace, cache: Path
) -> list[dict[str, Any]]:
    """Rows of one allocator setting, from a process of its own."""
    clean = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    words = selection(options)
    if options.no_compile or compiler() == "none":
        words.append("--no-compile")
    if settings:  # values do not depend on them, and the peak hardly
        words.append("--times")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.measure", str(output), *words]
        single = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(cache)}
        subprocess.run(command, check=True, cwd=ROOT, env=clean | settings | single)
        rows: list[dict[str, Any]] = json.loads(output.read_text())
    return rows


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Environment and rows of all allocator settings.

    torch.compile finds an empty cache in the first setting, and in the second what it left there.
    """
    found: dict[str, Any] = {
        "environment": environment(),
        "images": IMAGES,
        "ignored_share": IGNORED_SHARE,
        "repetitions": options.repetitions,
        "fewest_repetitions": FEWEST,
        "rows": [],
    }
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for allocator, settings in ALLOCATORS.items():
            if settings and platform.libc_ver()[0] != "glibc":
                continue
            print(f"allocator: {allocator}", file=sys.stderr)
            rows = _measure(settings, options, Path(folder))
            found["rows"] += [{"allocator": allocator, **row} for row in rows]
    found["minutes"] = round((time.perf_counter() - begin) / 60, 1)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_selection(parser)
    parser.add_argument("--quick", action="store_true", help="3 repetitions, to try a case")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--output", type=Path, help="where the numbers go, JSON")
    options = parser.parse_args(arguments)
    if options.quick:
        options.repetitions = min(options.repetitions, QUICK_REPETITIONS)
    reduced = options.size is not None or options.repetitions < REPETITIONS
    reduced = reduced or bool(options.only) or options.no_compile
    reduced = reduced or set(options.operators) != set(OPERATORS)
    output = options.output or (None if reduced else RESULTS)
    publishes = output is not None and output.resolve() == RESULTS
    if publishes and reduced:
        parser.error(
            f"expected --output elsewhere than {RESULTS.relative_to(ROOT)} for a run of another "
            "size, with fewer repetitions or of fewer cases, got the published file."
        )
    found = measured(options)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(found, indent=1) + "\n")
    if publishes:
        publish()
    print(render(found))


if __name__ == "__main__":
    main()
