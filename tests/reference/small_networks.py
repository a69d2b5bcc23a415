"""A DeepLab small enough for a test, its checkpoints, and weights in the namings of others."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reference.data.classes import CITYSCAPES, ClassList
from reference.networks.deeplab import DeepLab
from reference.networks.lite import LiteNetwork
from reference.networks.output import Segmenter, describe, seeded
from reference.networks.settings import DeepLabOptions, LiteOptions, ToyOptions
from reference.networks.toy import SegmentationNetwork
from reference.run.folder import as_plain

SMALL = DeepLabOptions(backbone="resnet14", width=8)
IMAGES = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))


class Bomb:
    """A pickle of it makes a folder where it is opened by `pickle`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refuses(begin: str, error: type[Exception] = ValueError) -> Any:
    """A sentence that begins so must be raised."""
    return pytest.raises(error, match=f"^{re.escape(begin)}")


def write_checkpoint(
    path: Path,
    network: Segmenter,
    classes: ClassList = CITYSCAPES,
    data: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A checkpoint as runs write them; `data` is of their settings."""
    if data is not None:
        more["settings"] = {"data": data, "reporting": {"size": [16, 24]}}
    named = {"description": describe(network), "classes": as_plain(classes), "iteration": 40}
    torch.save({**named, "student": network.state_dict(), **more}, path)
    return path


def build_network(*, seed: int, **options: Any) -> Segmenter:
    """A toy network whose random weights depend on `seed` and `options` alone."""
    with seeded(seed):
        return SegmentationNetwork(ToyOptions(**options))


def liking(*classes: int, count: int = 19) -> DeepLab:
    """A network that says the last of some classes everywhere, the one before it if it may not."""
    network = small_deeplab(num_classes=count)
    for branch in network.head.branches:
        branch.weight.data.zero_()
    network.head.branches[0].bias.data[list(classes)] = torch.arange(1.0, len(classes) + 1)
    return network


def small_deeplab(seed: int = 0, **changes: Any) -> DeepLab:
    with seeded(seed):
        return DeepLab(replace(SMALL, **changes))


NETWORKS = {
    "toy": lambda: build_network(seed=3, feature_dim=32, dilations=(1, 3), near_width=16),
    "dlv2": lambda: small_deeplab(seed=3),
    "dlv2_gn": lambda: small_deeplab(3, head="dlv2_gn", features="projection", stems="per_domain"),
    "two branches": lambda: small_deeplab(
        3, aspp_branches=2, features="backbone", normalisation="imagenet"
    ),
    "lite": lambda: LiteNetwork(LiteOptions(frozen_stages=0)),
}


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
