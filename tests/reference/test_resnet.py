"""The backbone: size, strides, dilations, Caffe's conventions, BatchNorm, memory for time."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from reference.networks.resnet import ResNet


def small(**options) -> ResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(14, width=8, **options)


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {n: v.clone() for n, v in network.state_dict().items() if "running" in n}


def test_resnet_101_has_the_size_of_the_published_one():
    with torch.device("meta"):
        network = ResNet(101)
    # torchvision's resnet101 has 44,549,160 parameters, of which 2,049,000 are its classifier's.
    assert sum(p.numel() for p in network.parameters()) == 44_549_160 - 2_049_000
    assert network.channels == 2048
    assert [len(getattr(network, f"layer{i}")) for i in (1, 2, 3, 4)] == [3, 4, 23, 3]


def test_strides_and_dilations_of_every_block():
    with torch.device("meta"):
        network = ResNet(50)
    for number, (stride, dilation) in enumerate([(1, 1), (2, 1), (1, 2), (1, 4)], start=1):
        blocks = getattr(network, f"layer{number}")
        assert {block.conv2.dilation for block in blocks} == {(dilation, dilation)}
        assert {block.conv2.padding for block in blocks} == {(dilation, dilation)}
        assert blocks[0].conv1.stride == (stride, stride)
        assert {block.conv1.stride for block in blocks[1:]} == {(1, 1)}
        assert {block.conv2.stride for block in blocks} == {(1, 1)}


def test_the_stride_can_sit_in_the_3x3_convolution():
    network = small(stride_in_1x1=False)
    assert network.layer2[0].conv1.stride == (1, 1)
    assert network.layer2[0].conv2.stride == (2, 2)
    images = torch.rand(1, 3, 32, 48)
    other = small(stride_in_1x1=True).eval()
    assert not torch.equal(network.eval()(images), other(images))


@pytest.mark.parametrize(
    ("ceil_mode", "size", "cells"),
    [
        (True, (730, 1460), (92, 183)),
        (True, (512, 1024), (65, 129)),
        (False, (512, 1024), (64, 128)),
        (False, (730, 1460), (92, 183)),
    ],
)
def test_rounding_after_max_pooling(ceil_mode, size, cells):
    with torch.device("meta"):
        network = ResNet(14, width=8, ceil_mode=ceil_mode)
        deep = network(torch.empty(1, 3, *size))
    assert deep.shape == (1, 256, *cells)


def test_affine_frozen_stops_gradients_while_statistics_follow_the_mode():
    network = small(batch_norm="affine_frozen").train()
    before = statistics(network)
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    assert network.bn1.weight.grad is None
    assert network.conv1.weight.grad is not None
    after = statistics(network)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_frozen_moves_nothing():
    network = small(batch_norm="frozen").train()
    before = statistics(network)
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    assert network.training
    assert not network.bn1.training
    assert network.layer4[0].bn3.weight.grad is None
    assert all(torch.equal(before[name], value) for name, value in statistics(network).items())


def test_trained_trains_scale_and_shift():
    network = small(batch_norm="trained").train()
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    assert network.layer4[0].bn3.weight.grad is not None


def test_checkpointing_changes_neither_gradients_nor_statistics():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, saving = (small(batch_norm="trained", checkpointing=flag) for flag in (False, True))
    for network in (plain, saving):
        network.train()(images).square().mean().backward()
    for (name, ours), theirs in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    expected = plain.state_dict()
    assert all(torch.equal(expected[n], v) for n, v in saving.state_dict().items())
    assert saving.layer1[0].bn1.momentum == plain.layer1[0].bn1.momentum
    assert int(saving.bn1.num_batches_tracked) == 1


def test_checkpointing_recomputes_blocks():
    calls = []
    network = small(checkpointing=True).train()
    network.layer3[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    network(torch.rand(2, 3, 16, 16)).sum().backward()
    assert len(calls) == 2
    network.eval()(torch.rand(2, 3, 16, 16))
    assert len(calls) == 3


def test_every_domain_has_a_stem_of_its_own_and_both_start_alike():
    network = small(stems="per_domain").eval()
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(images, "source"), network(images, "target"))
    network.target.conv1.weight.data.mul_(2)
    assert not torch.equal(network(images, "source"), network(images, "target"))
    assert torch.equal(network(images), network(images, "target"))
    own = {name.split(".")[1] for name in network.state_dict() if name.startswith("target.")}
    assert own == {"conv1", "bn1", "layer1"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"depth": 18}, "ResNet: expected depth to be one of 14, 26, 50, 101, 152, got 18."),
        (
            {"depth": 14, "stems": "two"},
            'ResNet: expected stems "shared" or "per_domain", got \'two\'.',
        ),
        (
            {"depth": 14, "batch_norm": "off"},
            'DeepLab: expected batch_norm "trained" or "affine_frozen" or "frozen", got \'off\'.',
        ),
    ],
)
def test_unknown_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        ResNet(**options)
