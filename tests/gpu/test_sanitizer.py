"""compute-sanitizer finds no access outside an allocation and no race in shared memory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SANITIZER = shutil.which("compute-sanitizer")
FOUND = 9
# torch's allocator hands out parts of large blocks, beside which an access is still inside.
UNCACHED = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}


@pytest.mark.skipif(SANITIZER is None, reason="compute-sanitizer is not installed")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_small_calls(tool: str) -> None:
    command = [
        *(SANITIZER, "--tool", tool, "--error-exitcode", str(FOUND)),
        *(sys.executable, "-m", "tests.gpu.small_calls"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | UNCACHED, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
