"""Where a number comes from: software, machine, code and memory of the run that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Final

import numpy as np
import torch

import protocontrast as pc

_ROOT: Final = Path(__file__).resolve().parents[1]
_CPU_TABLE: Final = Path("/proc/cpuinfo")
# Files that print, draw or store results, and so cannot change a number.
_CANNOT_MATTER: Final = {
    "reference/ablate.py",
    "reference/atomic.py",
    "reference/demo.py",
    "reference/engine/clock.py",
    "reference/engine/console.py",
    "reference/engine/expectations.py",
    "reference/engine/metrics.py",
    "reference/engine/panels.py",
    "reference/engine/recorded_run.py",
    "reference/engine/run_folder.py",
    "reference/evaluation/class_table.py",
    "reference/evaluation/published.py",
    "reference/experiments/tables.py",
    "reference/experiments/verdict.py",
    "reference/export.py",
    "reference/networks/program.py",
    "reference/networks/release.py",
    "reference/pictures/charts.py",
    "reference/pictures/cosine_matrix.py",
    "reference/pictures/domain_prototypes.py",
    "reference/pictures/feature_space.py",
    "reference/pictures/page.py",
    "reference/pictures/report.py",
    "reference/pictures/run_charts.py",
    "reference/pictures/run_facts.py",
    "reference/pictures/run_page.py",
    "reference/pictures/strip_files.py",
    "reference/pictures/time_lapse.py",
    "reference/pictures/visualise.py",
    "reference/predict.py",
    "reference/progress.py",
    "reference/provenance.py",
    "reference/report.py",
    "reference/score.py",
}


def _processor() -> str:
    if _CPU_TABLE.is_file():
        for line in _CPU_TABLE.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the version of everything that can change a number."""
    return {
        "protocontrast": pc.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def machine() -> dict[str, str | int]:
    """Return the processor, its cores, the system and how many threads torch uses now."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def code_digest(root: Path = _ROOT) -> str:
    """Return 12 hexadecimal digits that change with any source file that can change a number.

    Args:
        root: folder of ``protocontrast`` and ``reference``.
    """
    digest = hashlib.sha256()
    for package in ("protocontrast", "reference"):
        for path in sorted((root / package).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            if place not in _CANNOT_MATTER:
                digest.update(place.encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
