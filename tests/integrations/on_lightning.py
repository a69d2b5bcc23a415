"""The module of docs/extending.md in a Trainer, alone and on a rank of two."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tests.extending_blocks import run
from tests.integrations.beside_cpu_torch import stand_in
from tests.integrations.patches import CLASSES, DIM, PatchNetwork, loader


def contrast_module() -> Any:
    torch.manual_seed(0)
    return run("PyTorch Lightning")["ContrastModule"](PatchNetwork(), CLASSES, DIM)


def trainer(folder: Path, **more: Any) -> Any:
    import lightning

    return lightning.Trainer(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **{"devices": 1, **more},
    )  # fmt: skip


def fit_a_rank(folder: Path) -> None:
    """Train on this rank's half of the images; write what the bank holds then."""
    torch.set_num_threads(1)
    stand_in()
    from lightning.pytorch.strategies import DDPStrategy

    module = contrast_module()
    ddp = DDPStrategy(forward_sync_buffers=False, process_group_backend="gloo")
    leader = trainer(folder, max_epochs=4, devices=2, strategy=ddp)
    leader.fit(module, loader(images=8))
    assert leader.world_size == 2
    torch.save(module.bank.state_dict(), folder / f"rank{os.environ['RANK']}.pt")
