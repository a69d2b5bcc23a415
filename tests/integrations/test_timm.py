"""The network of docs/extending.md on timm's backbones."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("timm")

import timm

from tests.extending_blocks import run, scenes
from tests.integrations.patches import CLASSES

TINY = "test_resnet"


def test_the_network_gives_logits_and_features_at_stride_4() -> None:
    network = run("timm")["TimmNetwork"](CLASSES, dim=8, name=TINY)
    logits, features = network(scenes(1)[0].repeat(1, 1, 2, 2))
    assert logits.shape == (2, CLASSES, 16, 16)
    assert features.shape == (2, 8, 16, 16)
    logits.sum().backward()
    for name, parameter in network.named_parameters():
        if name.startswith(("near", "far", "classify")):
            assert parameter.grad is not None and parameter.grad.any(), name
    assert network.backbone.conv1[0].weight.grad.any()


def test_swin_gives_its_channels_last() -> None:
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, img_size=64, window_size=2,
        embed_dim=24, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2),
    )  # fmt: skip
    near, *_ = swin(torch.zeros(1, 3, 64, 64))
    assert near.shape == (1, 16, 16, 24)
    assert swin.feature_info.channels()[0] == near.movedim(-1, 1).shape[1]
