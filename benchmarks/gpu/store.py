"""What was measured on which device, as one JSON file per device that is always whole."""

import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import protocontrast
from benchmarks.compare import commit

RESULTS = Path(__file__).resolve().parents[1] / "results"
ON_CPU = "cpu"
"""What names of files of measurements on a CPU begin with."""


def slug(device: str) -> str:
    """A file name of a device's name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def path_of(device: str) -> Path:
    """Where a device's numbers are kept."""
    return RESULTS / f"{slug(device)}.json"


def driver() -> str:
    """The driver's version as nvidia-smi says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.strip().partition("\n")[0]


def environment(device: str, versions: dict[str, str]) -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    return {
        "device": device,
        "driver": driver(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
        "protocontrast": protocontrast.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def save(path: Path, measured: dict[str, Any]) -> None:
    """Replace the file at once: whoever is interrupted leaves the numbers of a moment before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
    unfinished.replace(path)


def published(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The stored measurements on GPUs, by file name."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith(ON_CPU))
    return [json.loads(path.read_text("utf-8")) for path in paths]
