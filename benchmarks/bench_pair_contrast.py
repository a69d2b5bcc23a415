"""Contrast between pairs of pixels, loss and gradient, beside compositions that hold all pairs.

`python -m benchmarks.bench_pair_contrast` measures the peak memory of each at growing numbers of
anchors, and says where it passes this machine's memory: measured where a size does, elsewhere
extrapolated from the largest.
"""

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.measure import peak_extra_bytes
from benchmarks.pairs import Loss, dense, dense_all, ntxent, streamed, streamed_all, supcon

LIBRARY = "protocontrast"
NUM_CLASSES = 16
CHANNELS = 256
SIZES = (512, 1024)
"""Anchors: half of PiPa's, and as many as PiPa's."""
TOLERANCE = 1e-5
MIB = 2**20
GROWTH = (256, 512, 1024, 2048)
STEEP = (32, 64, 96, 128)
"""Anchors whose memory is measured; the second where it grows with their fourth power."""


class Contender(NamedTuple):
    """A loss, what it must equal, the sizes at which its memory is measured, and its growth.

    `power` is that of A which the largest tensor takes: rows, pairs, or pairs of pairs.
    """

    loss: Loss
    reference: Loss
    power: int
    growth: tuple[int, ...] = GROWTH


def contenders() -> dict[str, Contender]:
    """Those that can be imported here, by the name a table shows."""
    found = {
        LIBRARY: Contender(streamed, dense, 1),
        "all pairs": Contender(dense, dense, 2),
        f"{LIBRARY}, all": Contender(streamed_all, dense_all, 1),
    }
    if find_spec("pytorch_metric_learning") is not None:
        found["PML NTXentLoss"] = Contender(ntxent, dense, 4, STEEP)
        found["PML SupConLoss"] = Contender(supcon, dense_all, 2)
    return found


def rows_of(anchors: int) -> tuple[Tensor, Tensor]:
    """Pixels around their class's direction, as many of each class as of the others."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(anchors) % NUM_CLASSES
    directions = torch.randn(NUM_CLASSES, CHANNELS, generator=random)
    rows = directions[labels] + 3 * torch.randn(anchors, CHANNELS, generator=random)
    return rows.requires_grad_(), labels


def evaluated(loss: Loss, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    value = loss(rows, labels)
    return value.detach(), torch.autograd.grad(value, rows)[0]


def check(contender: Contender, anchors: int) -> None:
    """ValueError unless value and gradient are those of the reference in float64."""
    rows, labels = rows_of(anchors)
    exact = rows.detach().double().requires_grad_()
    found = evaluated(contender.loss, rows, labels)
    for ours, truth in zip(found, evaluated(contender.reference, exact, labels), strict=True):
        error = float((ours.double() - truth).abs().max() / truth.abs().max())
        if not error <= TOLERANCE:
            raise ValueError(f"check: expected an error of at most {TOLERANCE}, got {error:.2e}.")


CALLS = [
    (anchors, name)
    for anchors in SIZES
    for name, contender in contenders().items()
    if anchors <= contender.growth[-1]
]
"""What is timed."""


@pytest.mark.parametrize(
    ("anchors", "name"),
    [
        pytest.param(
            *call,
            marks=pytest.mark.benchmark(group=f"pairs, A={call[0]}", timer=time.thread_time),
        )
        for call in CALLS
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_pair_contrast(
    benchmark: BenchmarkFixture, pytestconfig: pytest.Config, name: str, anchors: int
) -> None:
    contender = contenders()[name]
    check(contender, contender.growth[0])
    size = pytestconfig.getoption("--map-size")
    rows, labels = rows_of(anchors if size is None else size[0] * size[1])
    benchmark.pedantic(evaluated, (contender.loss, rows, labels), rounds=5)


def peak_mib(name: str, anchors: int) -> float | None:
    """What loss and gradient add to a process's size; None where there is no answer."""
    loss = contenders()[name].loss
    # What a first call loads and keeps is no part of it.
    evaluated(loss, *rows_of(2 * NUM_CLASSES))
    rows, labels = rows_of(anchors)
    found = peak_extra_bytes(lambda: evaluated(loss, rows, labels))
    return None if found is None else found / MIB


def passes(sizes: list[tuple[int, float]], limit_mib: float, power: int) -> tuple[int, bool]:
    """Anchors at which the memory passes the limit, and whether that was measured."""
    for anchors, mib in sizes:
        if mib > limit_mib:
            return anchors, True
    last, high = sizes[-1]
    return round(last * (limit_mib / high) ** (1 / power)), False


def lines(limit_mib: float) -> Iterator[str]:
    """A table: peak memory by anchors, and where it passes the limit."""
    yield f"Peak MiB of loss and gradient, A anchors against A keys, D = {CHANNELS}."
    for name, contender in contenders().items():
        check(contender, contender.growth[0])
        sizes = [(a, mib) for a in contender.growth if (mib := peak_mib(name, a)) is not None]
        shown = ", ".join(f"{anchors}: {mib:.0f}" for anchors, mib in sizes)
        most, seen = passes(sizes, limit_mib, contender.power)
        how = "measured" if seen else f"extrapolated as A^{contender.power}"
        where = f"passes {limit_mib / 1024:.0f} GiB at A = {most} ({how})"
        yield f"{name}: {shown}; {where}"


def main() -> None:
    """Print the table; on one thread, whose memory a forked process can measure."""
    torch.set_num_threads(1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MIB
    for line in lines(memory):
        print(line, flush=True)


if __name__ == "__main__":
    main()
