"""A network without batch statistics, batches of coloured cells, and what a trained bank holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from protocontrast import PrototypeBank
from tests.extending_blocks import scenes

CLASSES, DIM = 6, 12
CELLS = 8 * 8


class PatchNetwork(nn.Module):
    """Logits and features at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, DIM, 4, stride=4)
        self.classify = nn.Conv2d(DIM, CLASSES, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(images)
        return self.classify(features), features


def loader(images: int = 16, batch_size: int = 4, times: int = 1) -> DataLoader[Any]:
    """Images and labels, so many times, in the same order in every epoch."""
    once = TensorDataset(*scenes(1, images))
    return DataLoader(ConcatDataset([once] * times), batch_size=batch_size)


def cross_entropy(network: nn.Module) -> float:
    """Of a network's logits on images that it did not learn from."""
    images, labels = scenes(2, 8)
    with torch.no_grad():
        logits = network(images)[0]
    cells = labels[:, ::4, ::4]
    return float(nn.functional.cross_entropy(logits, cells))


def assert_equal(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, types and bits."""
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert state[name].dtype == value.dtype, name
        assert torch.equal(state[name], value), name


def assert_seen(bank: PrototypeBank, images: int) -> None:
    """Every cell of so many images was counted, and every class is kept in float32."""
    assert bank.count.sum() == images * CELLS
    assert bank.present.all()
    assert bank.prototypes.dtype == torch.float32
    assert bank.prototypes.isfinite().all()
    assert bank.prototypes.any(dim=1).all()
