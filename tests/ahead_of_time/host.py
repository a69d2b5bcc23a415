"""`python -m tests.ahead_of_time.host`: microseconds that the host spends on a call, without a GPU.

Triton's driver is exchanged for one that starts nothing, and nothing is compiled. Tensors are small
and on the CPU, so that torch's own operators take hardly longer than it takes to launch them. The
least of many times is told: a trend, to be compared on one machine.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import driver, jit

import protocontrast as pc
from protocontrast import kernels
from protocontrast.kernels import launch
from protocontrast.ops import labels as label_checks

CLASSES, SHAPE = 19, (1, 32, 4, 4)
REPEATS = 1000


class NoDevice:
    """What triton's launcher asks of a driver."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


class Nothing:
    """In place of a compiled kernel."""

    function, packed_metadata, started = 0, b"", 0
    __getitem__ = CompiledKernel.__getitem__

    def _init_handles(self) -> None:
        pass

    def launch_metadata(self, *arguments: Any) -> None:
        return None

    def run(self, *arguments: Any) -> None:
        Nothing.started += 1


def compile_nothing(self: Any, key: Any, *arguments: Any) -> Nothing:
    """Kept where triton keeps what it has compiled."""
    device = arguments[1]
    return self.device_caches[device][0].setdefault(key, Nothing())


def told(name: str, call: Callable[[], object]) -> str:
    """Time and launches of a call."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    Nothing.started = 0
    call()
    return f"{name:28}{min(times) * 1e6:6.0f} us {Nothing.started:4} launches of ours"


def calls() -> dict[str, Callable[[], object]]:
    """The calls in question, by name."""
    source, target = (torch.randn(SHAPE, requires_grad=True) for _ in range(2))
    labels, rows = torch.zeros(1, 4, 4, dtype=torch.int64), torch.randn(CLASSES, SHAPE[1])
    bicl = pc.BiCL(CLASSES, SHAPE[1], backend="triton")
    bicl.silence.over = True

    def contrast() -> torch.Tensor:
        return pc.pixel_prototype_contrast(source, labels, rows, backend="triton")

    def step() -> torch.Tensor:
        return bicl(source, labels, target).loss

    return {
        "contrast": contrast,
        "contrast, there and back": lambda: torch.autograd.grad(contrast(), source),
        "transfer": lambda: pc.transfer_labels(source, rows, backend="triton"),
        "BiCL": step,
        "BiCL, there and back": lambda: torch.autograd.grad(step(), (source, target)),
    }


def main() -> None:
    """Tell them all, on one thread."""
    driver.set_active(NoDevice())
    jit.JITFunction._do_compile = compile_nothing
    # Tensors of the CPU are taken for those of a GPU, whose labels no host looks at.
    kernels.INTERPRETED = True  # type: ignore[misc]
    launch._family = "sm90"
    label_checks.are_right = lambda *_: True  # type: ignore[assignment]
    torch.set_num_threads(1)
    for name, call in calls().items():
        print(told(name, call))


if __name__ == "__main__":
    main()
