"""Classes that are only padding cost the kernels of upsampled logits nothing."""

import subprocess
from pathlib import Path

import pytest

from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import UPSAMPLED, Case
from tests.ahead_of_time.machine_code import read
from tests.ahead_of_time.resources import TOOLS, compiled

CLASSES, PADDED = 19, 32


@pytest.mark.parametrize("kernel", UPSAMPLED[:2])
def test_an_exponential_per_class_and_pixel(kernel: str, tmp_path: Path) -> None:
    """The loop over rows has one for each class, and a few for each pixel."""
    case = Case("sm90", kernel, "bf16", "highest", 256, CLASSES, "nchw", False, "cosine")
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled(launch_of(case), "sm90").asm["cubin"])
    command = [str(TOOLS / "nvdisasm"), "-c", str(cubin)]
    code = read(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = sum(each.name == "MUFU" and "EX2" in each.flags for each in code)
    assert CLASSES <= found < (CLASSES + PADDED) // 2
