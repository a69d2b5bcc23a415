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
    "ablate.py",
    "atomic.py",
    "charts.py",
    "class_table.py",
    "clock.py",
    "console.py",
    "cosine_matrix.py",
    "demo.py",
    "domain_prototypes.py",
    "expectations.py",
    "export.py",
    "feature_space.py",
    "metrics.py",
    "page.py",
    "panels.py",
    "predict.py",
    "program.py",
    "progress.py",
    "provenance.py",
    "published.py",
    "recorded_run.py",
    "release.py",
    "report.py",
    "run_charts.py",
    "run_facts.py",
    "run_folder.py",
    "run_page.py",
    "score.py",
    "strip_files.py",
    "tables.py",
    "time_lapse.py",
    "verdict.py",
    "visualise.py",
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


def code_digest() -> str:
    """Return 12 hexadecimal digits that change with any source file that can change a number."""
    digest = hashlib.sha256()
    for package in ("protocontrast", "reference"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            if path.name not in _CANNOT_MATTER:
                digest.update(path.relative_to(_ROOT).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
