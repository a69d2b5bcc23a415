"""PyTorch Lightning 2.6.6: the module that a trainer drives."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor, nn

from tests.stand_ins.package import packaged


class LightningModule(nn.Module):
    """Hooks, and `log`, which keeps what it is told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.logged: dict[str, Tensor] = {}

    def log(self, name: str, value: Tensor, prog_bar: bool = False, **kwargs: Any) -> None:
        self.logged[name] = value

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise NotImplementedError


def modules() -> dict[str, ModuleType]:
    """The import names of the package."""
    return packaged({"pytorch_lightning": {"LightningModule": LightningModule}})
