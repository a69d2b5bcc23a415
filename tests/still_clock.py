"""A clock that is none, for the GPU benchmarks where there is no GPU, and a device's limits."""

from typing import Any

import torch

from benchmarks.gpu import measure
from benchmarks.gpu.cases import Case
from benchmarks.gpu.clock import Profile

CPU = torch.device("cpu")
LIMITS = {
    "bytes_per_second": {"read": 4e12, "write": 3e12, "copy": 3.5e12},
    "flops_per_second": {"16-bit": 8e14, "tf32": 4e14, "ieee": 5e13},
    "empty_launch_us": 1.5,
}
TINY = Case("contrast", (2, 6, 8), 16, 5, "float32", "highest", "NCHW", True)


class Still:
    """A clock that runs every call once and says the same of all."""

    def run(self, call: Any) -> Any:
        return call()

    warm_up = run

    def graph_us(self, call: Any) -> float:
        call()
        return 100.0

    host_us = replay_us = graph_us

    def peak_bytes(self, call: Any) -> int:
        call()
        return 3 * measure.MIB

    def profile(self, call: Any) -> Profile:
        call()
        return Profile(4, "contrast_kernel", 80.0)


def of_one_device(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One device's numbers, without the bidirectional step."""
    where = {"torch": "2", "triton": "3", "cuda": "12", "python": "3", "device": "Some GPU"}
    where |= {"driver": "1", "protocontrast": "0", "commit": "abc", "date": "2020-01-01"}
    return {"environment": where, "complete": False, "limits": LIMITS, "step": [], "rows": rows}
