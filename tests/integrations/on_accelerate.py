"""The loop of docs/extending.md under Accelerate, alone and in one process of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from protocontrast import PrototypeBank
from tests.extending_blocks import run
from tests.integrations.patches import CLASSES, DIM, PatchNetwork, loader


def trained(
    accelerator: Any, resume: Path | None = None, **batches: int
) -> tuple[nn.Module, PrototypeBank]:
    """Train by the document's loop; the network and the bank."""
    torch.manual_seed(0)
    network, bank = PatchNetwork(), PrototypeBank(CLASSES, DIM)
    run("Accelerate")["train"](accelerator, network, bank, loader(**batches), resume)
    return network, bank


def train_in_a_process(folder: Path) -> None:
    """Train on every second batch; write what the bank holds then."""
    torch.set_num_threads(1)
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    _, bank = trained(accelerator)
    torch.save(bank.state_dict(), folder / f"rank{accelerator.process_index}.pt")
