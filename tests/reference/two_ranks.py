"""What each of two ranks does in `test_processes`; started by torchrun."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from reference.data.loading import SourceBatch, TargetBatch
from reference.engine.loop import Loop
from reference.engine.optimisation import Precision
from reference.engine.processes import Processes, processes
from reference.engine.settings import Machine
from reference.engine.stage_settings import AdaptationStage
from reference.engine.terms import BothDomains, Part, part_losses, shares
from reference.training.adapt_step import build_bicl
from reference.training.config import Contrast
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import protocontrast as pc
from reference.networks.toy import SegmentationNetwork, build_network
from reference.train import Options, run_training
from tests.reference.tiny_runs import EVERYTHING

CPU = Machine(device="cpu")
STAGE = AdaptationStage(
    source_entropy_weight=0.2,
    entropy_weight=0.3,
    static_weight=0.4,
    contrast=Contrast(measure="similarity", threshold=0.2),
)


def part(images: slice) -> Part:
    """Some of four images whose labels differ in number from image to image."""
    generator = torch.Generator().manual_seed(3)
    source, target = torch.rand(2, 4, 3, 16, 32, generator=generator)
    labels, static = torch.randint(0, 4, (2, 4, 16, 32), generator=generator)
    for index, maps in enumerate(zip(labels, static, strict=True)):
        for kept, label in enumerate(maps):
            label[: 2 + 3 * index + kept] = 255
    indices = torch.arange(4)[images]
    return Part(
        SourceBatch(source[images], labels[images], indices),
        TargetBatch(target[images], indices, static[images]),
    )


def gradients(
    parts: list[Part], group: Processes, stage: AdaptationStage = STAGE
) -> tuple[dict[str, Any], pc.BiCL, dict[str, float]]:
    """Two steps of the loss on fixed weights: gradients, prototypes, terms of the second."""
    network: SegmentationNetwork = build_network(seed=0)
    bicl = build_bicl(stage.contrast, network.feature_dim) if stage.contrasts else None
    read: nn.Module = BothDomains(network, Precision(CPU, group))
    if group.shared:
        read = DistributedDataParallel(read, broadcast_buffers=False)
    terms: dict[str, float] = {}
    for _ in range(2):
        network.zero_grad()
        terms.clear()
        common = shares(parts, group)
        for one in parts:
            done = part_losses(network, read, bicl, one, stage, 0, common)
            torch.stack([*done.losses.values()]).sum().backward()
            for name, term in done.losses.items():
                terms[name] = terms.get(name, 0.0) + float(term.detach())
    found = {name: value.grad for name, value in network.named_parameters()}
    return found, bicl or pc.BiCL(1, 1), terms


def main(folder: str) -> None:
    """Store what this rank found, then do a whole run together."""
    torch.set_num_threads(1)
    with processes(CPU) as group:
        mine = part(slice(2 * group.rank, 2 * group.rank + 2))
        found, bicl, terms = gradients([mine], group)
        values = group.total(torch.tensor([*terms.values()])) / group.world
        stored = {
            "gradients": found,
            "bicl": bicl.state_dict(),
            "terms": dict(zip(terms, values.tolist(), strict=True)),
        }
        torch.save(stored, Path(folder) / f"rank{group.rank}.pth")
        settings = replace(EVERYTHING, machine=replace(EVERYTHING.machine, accumulate=1))
        complete = run_training(Options(run=Path(folder) / "run", settings=settings), group)
        (Path(folder) / f"complete{group.rank}").write_text(str(complete))
        broken = Options(run=Path(folder) / "broken", resume="auto", settings=settings)
        real = Loop._after
        with contextlib.suppress(InterruptedError):
            Loop._after = _fails_late  # type: ignore[method-assign]
            run_training(broken, group)
        Loop._after = real  # type: ignore[method-assign]
        run_training(broken, group)


def _fails_late(loop: Loop, *arguments: Any, after: Any = Loop._after) -> None:
    after(loop, *arguments)
    if loop.state.iteration == 5:
        raise InterruptedError


if __name__ == "__main__":
    main(*sys.argv[1:])
