"""A DeepLab small enough for a test, and files of weights in the namings of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reference.networks.deeplab import DeepLab
from reference.networks.output import seeded
from reference.networks.settings import DeepLabOptions

SMALL = DeepLabOptions(backbone="resnet14", width=8)


def small_deeplab(seed: int = 0, **changes: Any) -> DeepLab:
    network = seeded(lambda: DeepLab(replace(SMALL, **changes)), seed)
    assert isinstance(network, DeepLab)
    return network


def lively(network: DeepLab, seed: int = 1) -> DeepLab:
    """Fill every floating tensor of backbone and head with numbers of its own."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not name.startswith("normalise."):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return network


def torchvision_names(network: DeepLab) -> dict[str, Tensor]:
    own = network.backbone.state_dict()
    return {
        **{name: value for name, value in own.items() if not name.startswith("target.")},
        "fc.weight": torch.zeros(1000, network.backbone.channels),
        "fc.bias": torch.zeros(1000),
    }


def caffe_names(network: DeepLab, *, layer: str = "layer5", front: str = "") -> dict[str, Tensor]:
    """Name tensors as the old files do: no counters, the head as a list of convolutions."""
    backbone = {
        f"{front}{name}": value
        for name, value in network.backbone.state_dict().items()
        if "num_batches" not in name and not name.startswith("target.")
    }
    head = {
        f"{front}{layer}.conv2d_list.{name}": value
        for name, value in network.head.branches.state_dict().items()
    }
    return backbone | head
