"""DeepLab-V2: backbone and both heads against their definition, features, BatchNorm."""

import re
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reference.networks.backbones import ResNet, TimmBackbone
from reference.networks.deeplab import DeepLab, GroupNormHead, SumHead
from reference.networks.output import ColourNormalisation
from reference.networks.settings import DeepLabOptions
from tests.reference.small_networks import IMAGES, SMALL, refuses, small_deeplab


def small_resnet(**options) -> ResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(replace(SMALL, **options))


def test_the_released_network_of_bicl_is_this_one():
    with torch.device("meta"):
        network = DeepLab(DeepLabOptions())
        logits, features = network(torch.empty(1, 3, 730, 1460))
    count = sum(p.numel() for p in network.parameters())
    # The release has 45.5 million: a stem more for the target, and a second head it never uses.
    stem = 3 * 64 * 49 + 2 * 64 + 215_808
    second_head = 4 * (2048 * 19 * 9 + 19)
    assert count == 43_901_068
    assert round((count + stem + second_head) / 1e6, 1) == 45.5
    # torchvision's resnet101 has 44,549,160 parameters, of which 2,049,000 are its classifier's.
    assert sum(p.numel() for p in network.backbone.parameters()) == 44_549_160 - 2_049_000
    assert (logits.shape, features.shape) == ((1, 19, 92, 183), (1, 76, 92, 183))


@pytest.mark.parametrize("caffe", [True, False])
def test_strides_and_dilations_of_every_block(caffe):
    with torch.device("meta"):
        network = ResNet(DeepLabOptions(backbone="resnet50", stride_in_1x1=caffe))
    for number, (stride, dilation) in enumerate([(1, 1), (2, 1), (1, 2), (1, 4)], start=1):
        first, *others = getattr(network, f"layer{number}")
        strides = (first.conv1.stride[0], first.conv2.stride[0])
        assert strides == ((stride, 1) if caffe else (1, stride))
        assert {block.conv2.dilation[0] for block in (first, *others)} == {dilation}
        assert {block.conv2.padding[0] for block in (first, *others)} == {dilation}
        assert {block.conv2.stride[0] for block in others} == {1}


@pytest.mark.parametrize(("ceil_mode", "cells"), [(True, (65, 129)), (False, (64, 128))])
def test_rounding_after_max_pooling(ceil_mode, cells):
    with torch.device("meta"):
        deep = small_resnet(ceil_mode=ceil_mode)(torch.empty(1, 3, 512, 1024))
    assert deep.shape == (1, 256, *cells)


@pytest.mark.parametrize(
    ("option", "trained", "moving"),
    [("trained", True, True), ("affine_frozen", False, True), ("frozen", False, False)],
)
def test_how_far_batch_norm_is_trained(option, trained, moving):
    network = small_resnet(batch_norm=option).train()
    before = {n: v.clone() for n, v in network.state_dict().items() if "running" in n}
    network(IMAGES).sum().backward()
    assert (network.layer4[0].bn3.weight.grad is not None) == trained
    assert network.conv1.weight.grad is not None
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) != moving for name, value in before.items())


def test_checkpointing_recomputes_blocks_and_changes_neither_gradients_nor_statistics():
    plain, saving = (
        small_resnet(batch_norm="trained", checkpointing=flag) for flag in (False, True)
    )
    calls = []
    saving.layer3[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    for network in (plain, saving):
        network.train()(IMAGES).square().mean().backward()
    assert len(calls) == 2
    for (name, ours), theirs in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    expected = plain.state_dict()
    assert all(torch.equal(expected[n], v) for n, v in saving.state_dict().items())
    assert int(saving.bn1.num_batches_tracked) == 1


def test_a_stem_per_domain_starts_alike_and_is_chosen_by_the_domain():
    network = small_deeplab(stems="per_domain").eval()
    assert torch.equal(network(IMAGES, "source").logits, network(IMAGES, "target").logits)
    network.backbone.target.conv1.weight.data.mul_(3)
    source, target = network(IMAGES, "source").logits, network(IMAGES, "target").logits
    assert not torch.equal(source, target)
    assert torch.equal(network(IMAGES).logits, target)


@pytest.mark.parametrize("branches", [2, 4])
def test_the_sum_head_adds_dilated_convolutions_and_starts_small(branches):
    head = SumHead(64, 19, branches=branches)
    x = torch.rand(2, 64, 30, 28)
    expected = [
        F.conv2d(x, convolution.weight, convolution.bias, padding=rate, dilation=rate)
        for convolution, rate in zip(head.branches, (6, 12, 18, 24)[:branches], strict=True)
    ]
    logits, features = head(x)
    torch.testing.assert_close(logits, sum(expected), rtol=0, atol=1e-6)
    assert torch.equal(features, torch.cat(expected, dim=1))
    weights = torch.cat([b.weight.detach().flatten() for b in head.branches])
    assert abs(float(weights.std()) - 0.01) < 2e-4


def test_the_group_norm_head_is_built_as_proda_builds_it():
    head = GroupNormHead(32, 19)
    convolutions = [branch[0] for branch in head.branches]
    assert [c.kernel_size[0] for c in convolutions] == [1, 3, 3, 3, 3]
    assert [c.dilation[0] for c in convolutions] == [1, 6, 12, 18, 24]
    assert {branch[1].num_groups for branch in head.branches} == {32}
    assert head.bottleneck[0].weight.shape == (256, 5 * 256, 3, 3)
    assert head.classifier.bias is None
    x = torch.rand(2, 32, 5, 6)
    (logits, features), (again, same) = head.train()(x), head(x)
    # Dropout reaches the logits alone.
    assert torch.equal(features, same) and not torch.equal(logits, again)
    logits, features = head.eval()(x)
    torch.testing.assert_close(F.conv2d(features, head.classifier.weight), logits)
    x = torch.rand(1, 1280, 2, 3)
    ratio = head.gate(x) / x
    # The gate weighs whole channels.
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


@pytest.mark.parametrize(("head", "place", "channels"), [
    ("dlv2", "branches", 12), ("dlv2", "backbone", 256), ("dlv2", "projection", 128),
    ("dlv2_gn", "bottleneck", 256),
])  # fmt: skip
def test_features_come_from_the_place_that_is_named(head, place, channels):
    network = small_deeplab(head=head, features=place, num_classes=3).eval()
    logits, given = network(IMAGES)
    assert network.feature_dim == channels == given.shape[1]
    deep = network.backbone(network.normalise(IMAGES))
    expected = deep if place == "backbone" else network.head(deep).features
    assert torch.equal(given, network.projection(deep) if place == "projection" else expected)
    assert torch.equal(logits, network.head(deep).logits)


def test_colours():
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    caffe, imagenet, half, none = (
        ColourNormalisation(kind)(image).flatten().tolist()
        for kind in ("caffe", "imagenet", "half", "none")
    )
    # Blue first, and not divided.
    assert caffe == pytest.approx([0 - 104.00698793, 127.5 - 116.66876762, 255 - 122.67891434])
    assert imagenet == pytest.approx([0.515 / 0.229, 0.044 / 0.224, -0.406 / 0.225], rel=1e-5)
    assert half == pytest.approx([1.0, 0.0, -1.0])
    assert none == [1.0, 0.5, 0.0]
    colours = ColourNormalisation("caffe")
    assert colours.kind() == "caffe"
    colours.mean.add_(1)
    assert colours.kind() == "custom"
    assert colours.describe()["mean"] == pytest.approx([105.00699, 117.66877, 123.67891])


def test_normalisation_and_corners_come_with_the_weights_and_survive_averaging():
    saved = small_deeplab(seed=1).eval()
    other = small_deeplab(normalisation="imagenet", align_corners=False).eval()
    other.load_state_dict(saved.state_dict())
    assert other.options()["align_corners"] is True
    assert other.options()["normalisation"] == "caffe"
    assert torch.equal(other(IMAGES).logits, saved(IMAGES).logits)
    average = AveragedModel(saved, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    for _ in range(3):
        average.update_parameters(saved)
    assert average.module.normalise.kind() == "caffe"
    assert average.module.align_corners is True


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"backbone": "vgg16"}, "DeepLab: expected backbone resnet14, resnet26, resnet50, resnet"),
    ({"head": "dlv3"}, 'DeepLab: expected head "dlv2" or "dlv2_gn", got \'dlv3\'.'),
    ({"head": "dlv2_gn"}, 'DeepLab: expected features "bottleneck", "backbone" or "projecti'),
    ({"aspp_branches": 3}, "SumHead: expected aspp_branches of 4, or 2 for old weights, got 3"),
    (
        {"backbone": "timm/resnet50", "stems": "per_domain"},
        'DeepLab: expected stems "shared" and no checkpointing with the backbone ',
    ),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(changes, sentence):
    with refuses(sentence):
        DeepLab(replace(SMALL, **changes))


class Pyramid(nn.Module):
    """Two feature maps, as a network of timm with features_only=True returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 8, stride=8)
        self.norm = nn.BatchNorm2d(12)
        self.feature_info = SimpleNamespace(channels=lambda: [3, 12], reduction=lambda: [1, 8])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x, self.norm(self.conv(x))]


def test_deeplab_stands_on_the_last_map_of_a_network_of_timm(monkeypatch):
    calls = []

    def create_model(name, **options):
        calls.append((name, options))
        if name == "nothing":
            raise RuntimeError("Unknown model (nothing)")
        return Pyramid()

    timm = ModuleType("timm")
    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)
    network = DeepLab(replace(SMALL, backbone="timm/resnet50", batch_norm="frozen")).train()
    assert calls == [("resnet50", {"pretrained": False, "features_only": True, "output_stride": 8})]
    logits, features = network(IMAGES)
    assert (logits.shape, features.shape) == ((3, 19, 2, 3), (3, 76, 2, 3))
    norm = network.backbone.model.norm
    assert (norm.weight.requires_grad, norm.training) == (False, False)
    with pytest.raises(ValueError, match=r"got 'nothing' \(Unknown model \(nothing\)\)\. Hint: "):
        TimmBackbone("nothing")


@pytest.mark.parametrize(
    "error", [ImportError("No module named 'timm'"), RuntimeError("torchvision::nms is missing")]
)
def test_a_missing_timm_is_named(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr("reference.networks.backbones.importlib.import_module", fail)
    with pytest.raises(ImportError, match=re.escape(f"got {type(error).__name__}: {error}. Hint")):
        DeepLab(replace(SMALL, backbone="timm/resnet50"))
