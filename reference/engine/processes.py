"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
from torch import Tensor, nn
from torch import distributed as dist

from reference.engine.settings import Machine

# The others wait while one process evaluates.
_PATIENCE: Final = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """Which process this is.

    Args:
        rank: number of this process, 0 .. world - 1.
        world: number of processes.
        device: where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    @property
    def shared(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.shared:
            dist.barrier()

    def agree(self, sentence: str | None) -> str | None:
        """Return what the first process says, on every process."""
        if not self.shared:
            return sentence
        said = [sentence]
        dist.broadcast_object_list(said)
        return said[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the buffers of the first, such as the statistics of BatchNorm."""
        if self.shared:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes; the argument is not changed."""
        if not self.shared:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed


def _device(wanted: str, local_rank: int) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(
            'train: expected a GPU for device "cuda", got none that torch can use. '
            "Hint: leave machine.device at auto."
        )
    return torch.device("cuda", local_rank)


@contextmanager
def processes(machine: Machine) -> Iterator[Processes]:
    """Join the processes that torchrun started; alone where it did not.

    Args:
        machine: says on which device.

    Raises:
        ValueError: a GPU is wanted and there is none.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = (int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK"))
    device = _device(machine.device, local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Processes(0, 1, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(rank, world, device)
    finally:
        dist.destroy_process_group()
