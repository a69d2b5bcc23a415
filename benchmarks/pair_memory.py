"""`python -m benchmarks.pair_memory`: how many anchors contrast between pixels has memory for.

Loss and gradient of A anchors against as many keys, in a child that may take 8 GiB, at growing A
until it fails; the library beside a composition and pytorch-metric-learning. Writes
benchmarks/results/cpu_pairs.json and its table in docs/performance.md.
"""

import argparse
import json
import os
import resource
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.compare import environment
from benchmarks.measure import peak_extra_bytes
from benchmarks.operators import LIBRARY
from benchmarks.pairs import Loss, dense, dense_all, ntxent, streamed, streamed_all, supcon
from benchmarks.report import in_c, insert, number, table
from benchmarks.table import DOCUMENT, RESULTS

STORED = RESULTS.with_name("cpu_pairs.json")
BEGIN = "<!-- pairs: begin, written by `python -m benchmarks.pair_memory` -->"
END = "<!-- pairs: end -->"
NUM_CLASSES = 16
CHANNELS = 256
SIZES = (128, 192, 256, 320, 512, 1024, 2048, 4096, 8192, 16384)
LIMIT_GIB = 8
TOLERANCE = 1e-5
MIB = 2**20


class Contender(NamedTuple):
    """A loss, and what it must equal where all classes have as many pixels."""

    loss: Loss
    reference: Loss


def contenders() -> dict[str, Contender]:
    """Those that can be imported here, by the name a table shows."""
    found = {
        LIBRARY: Contender(streamed, dense),
        "all pairs": Contender(dense, dense),
        f"{LIBRARY}, all": Contender(streamed_all, dense_all),
    }
    if find_spec("pytorch_metric_learning") is not None:
        found["PML NTXentLoss"] = Contender(ntxent, dense)
        found["PML SupConLoss"] = Contender(supcon, dense_all)
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


def peak_mib(loss: Loss, anchors: int, limit_gib: float = LIMIT_GIB) -> float | None:
    """What loss and gradient add to a process's size; None where they do not fit."""
    # What a first call loads and keeps is no part of it.
    evaluated(loss, *rows_of(2 * NUM_CLASSES))
    rows, labels = rows_of(anchors)

    def limited() -> tuple[Tensor, Tensor]:
        # In the child alone, where a failure's traceback would only repeat what a table says.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = mapped + int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
        return evaluated(loss, rows, labels)

    try:
        found = peak_extra_bytes(limited)
    except RuntimeError:
        return None
    if found is None:
        raise SystemExit("pair_memory: expected a kernel that resets its peak counter, got none.")
    return found / MIB


def measured() -> Iterator[dict[str, Any]]:
    """A row per contender and size, the last one of a contender where it did not fit."""
    for name, contender in contenders().items():
        check(contender, SIZES[0])
        for anchors in SIZES:
            peak = peak_mib(contender.loss, anchors)
            yield {"contender": name, "anchors": anchors, "peak_mib": peak and round(peak, 1)}
            if peak is None:
                break


def render(stored: dict[str, Any]) -> str:
    """The conditions and the table: MiB by anchors, and where it ends."""
    where, rows = stored["environment"], stored["rows"]
    peaks: dict[str, dict[int, float | None]] = {}
    for row in rows:
        peaks.setdefault(row["contender"], {})[row["anchors"]] = row["peak_mib"]
    sizes = sorted({row["anchors"] for row in rows})
    lines = [
        [name, *("" if a not in found else number(found[a]) for a in sizes), ended(found)]
        for name, found in peaks.items()
    ]
    text = (
        f"{where['device']}, one thread; torch {where['torch']}, protocontrast{in_c(where)} at "
        f"{where['commit']}, {where['date']}. MiB that loss and gradient add, A anchors against "
        f"themselves, D = {stored['channels']}; - does not fit into {stored['limit_gib']} GiB."
    )
    return f"{text}\n\n{table(['A', *map(str, sizes), 'ends at'], lines)}"


def ended(peaks: dict[int, float | None]) -> str:
    """The size that did not fit."""
    return next((str(anchors) for anchors, peak in peaks.items() if peak is None), "")


def main(arguments: list[str] | None = None) -> None:
    """Measure on one thread, whose memory a forked process can measure; store and publish."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(arguments)
    torch.set_num_threads(1)
    stored = {
        "environment": environment(), "channels": CHANNELS, "limit_gib": LIMIT_GIB,
        "rows": list(measured()),
    }  # fmt: skip
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
    text = insert(DOCUMENT.read_text("utf-8"), render(stored), BEGIN, END)
    DOCUMENT.write_text(text, "utf-8")
    print(render(stored))


if __name__ == "__main__":
    main()
