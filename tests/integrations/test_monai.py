"""The step of docs/extending.md on MONAI's volumes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("monai")

from monai.data import DataLoader, Dataset, MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, RandFlipd

from tests.extending_blocks import run

CLASSES = 4


def scans(seed: int, shade: float) -> Any:
    """A loader of volumes (1, 32, 32, 32): blocks of one brightness per class, some flipped."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.randint(CLASSES, (4, 4, 4, 4), generator=random)
    for axis in (1, 2, 3):
        cells = cells.repeat_interleave(8, dim=axis)
    both = [{"image": shade + one.float(), "label": one.float()} for one in cells]
    keys = ["image", "label"]
    made = Compose(
        [
            EnsureTyped(keys),
            EnsureChannelFirstd(keys, channel_dim="no_channel"),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
        ]
    )
    return DataLoader(Dataset(both, made), batch_size=2)


def test_the_loss_falls_on_metatensors() -> None:
    names = run("MONAI")
    losses = []
    for _ in range(10):
        for batch, other in zip(scans(1, 0.0), scans(2, 0.5), strict=True):
            assert isinstance(batch["image"], MetaTensor)
            assert batch["image"].shape == (2, 1, 32, 32, 32)
            losses.append(float(names["step"](batch, other)))
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    bicl = names["bicl"]
    assert bicl.source_bank.present.all()
    assert bicl.target_bank.present.any()
    for value in bicl.state_dict().values():
        assert type(value) is torch.Tensor
        assert value.double().isfinite().all()


def test_whole_volumes_are_predicted_in_windows() -> None:
    names = run("MONAI")
    network, classify = names["network"].eval(), names["classify"]
    volume = torch.randn(1, 1, 32, 32, 48)
    with torch.no_grad():
        logits = sliding_window_inference(volume, 32, 1, lambda x: classify(network(x)))
    assert logits.shape == (1, CLASSES, 32, 32, 48)
