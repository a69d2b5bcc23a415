"""DeepLab-V2: both heads against their definition, places of the features, groups, settings."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reference.networks.deeplab import TORCHVISION, DeepLab, parameter_groups
from reference.networks.heads import GroupNormHead, SumHead
from reference.networks.normalisation import ColourNormalisation
from tests.reference.small_networks import SMALL, small_deeplab

IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def test_the_released_network_of_bicl_is_this_one():
    with torch.device("meta"):
        count = sum(p.numel() for p in DeepLab().parameters())
    # The release has 45.5 million: a stem more for the target, and a second head it never uses.
    stem = 3 * 64 * 49 + 2 * 64 + 215_808
    second_head = 4 * (2048 * 19 * 9 + 19)
    assert count == 43_901_068
    assert round((count + stem + second_head) / 1e6, 1) == 45.5


def test_features_are_76_channels_at_the_sizes_of_the_release():
    with torch.device("meta"):
        network = DeepLab()
        logits, features = network(torch.empty(1, 3, 730, 1460))
    assert logits.shape == (1, 19, 92, 183)
    assert features.shape == (1, 76, 92, 183)
    assert (network.feature_dim, network.num_classes, network.stride) == (76, 19, 8)


@pytest.mark.parametrize("branches", [2, 4])
def test_the_sum_head_adds_dilated_convolutions(branches):
    head = SumHead(6, 3, branches=branches)
    x = torch.rand(2, 6, 30, 28)
    expected = [
        F.conv2d(x, convolution.weight, convolution.bias, padding=rate, dilation=rate)
        for convolution, rate in zip(head.branches, (6, 12, 18, 24), strict=False)
    ]
    assert len(expected) == branches
    logits, features = head(x)
    torch.testing.assert_close(logits, sum(expected), rtol=0, atol=1e-6)
    assert torch.equal(features, torch.cat(expected, dim=1))


def test_the_sum_head_starts_small():
    head = SumHead(64, 19)
    weights = torch.cat([branch.weight.detach().flatten() for branch in head.branches])
    assert abs(float(weights.std()) - 0.01) < 2e-4
    assert abs(float(weights.mean())) < 2e-4
    assert all(not branch.bias.any() for branch in head.branches)


def test_every_branch_runs_once_per_forward():
    head = SumHead(6, 3)
    calls = []
    for branch in head.branches:
        branch.register_forward_hook(lambda *_: calls.append(1))
    head(torch.rand(1, 6, 4, 4))
    assert len(calls) == 4


def test_the_group_norm_head_is_built_as_proda_builds_it():
    head = GroupNormHead(32, 19)
    convolutions = [branch[0] for branch in head.branches]
    assert [c.kernel_size[0] for c in convolutions] == [1, 3, 3, 3, 3]
    assert [c.dilation[0] for c in convolutions] == [1, 6, 12, 18, 24]
    assert {branch[1].num_groups for branch in head.branches} == {32}
    assert head.bottleneck[0].weight.shape == (256, 5 * 256, 3, 3)
    assert head.classifier.bias is None
    assert head.dropout.p == 0.1
    x = torch.rand(2, 32, 5, 6)
    logits, features = head.eval()(x)
    assert features.shape == (2, 256, 5, 6)
    torch.testing.assert_close(F.conv2d(features, head.classifier.weight), logits)


def test_dropout_reaches_the_logits_and_not_the_features():
    head = GroupNormHead(32, 19).train()
    x = torch.rand(2, 32, 5, 6)
    (logits, features), (again, same) = head(x), head(x)
    assert torch.equal(features, same)
    assert not torch.equal(logits, again)


def test_the_gate_weighs_channels_by_their_mean():
    gate = GroupNormHead(32, 19).gate
    x = torch.rand(1, 1280, 2, 3)
    ratio = gate(x) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


@pytest.mark.parametrize(
    ("head", "features", "channels"),
    [
        ("dlv2", "branches", 76),
        ("dlv2", "backbone", 256),
        ("dlv2", "projection", 128),
        ("dlv2_gn", "bottleneck", 256),
        ("dlv2_gn", "projection", 128),
    ],
)
def test_features_come_from_the_place_that_is_named(head, features, channels):
    network = small_deeplab(head=head, features=features).eval()
    logits, found = network(IMAGES)
    assert network.feature_dim == channels == found.shape[1]
    assert found.shape[2:] == logits.shape[2:]
    deep = network.backbone(network.normalise(IMAGES))
    expected = {
        "branches": lambda: network.head(deep).features,
        "bottleneck": lambda: network.head(deep).features,
        "backbone": lambda: deep,
        "projection": lambda: network.projection(deep),
    }[features]()
    assert torch.equal(found, expected)
    assert torch.equal(logits, network.head(deep).logits)


def test_a_stem_per_domain_is_chosen_by_the_domain():
    network = small_deeplab(stems="per_domain").eval()
    network.backbone.target.conv1.weight.data.mul_(3)
    source, target = network(IMAGES, "source").logits, network(IMAGES, "target").logits
    assert not torch.equal(source, target)
    assert torch.equal(network(IMAGES).logits, target)


def test_colours_of_caffe_are_blue_first_and_not_divided():
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    found = ColourNormalisation("caffe")(image).flatten().tolist()
    assert found == pytest.approx([0 - 104.00698793, 127.5 - 116.66876762, 255 - 122.67891434])


def test_colours_of_imagenet_and_none():
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    found = ColourNormalisation("imagenet")(image).flatten().tolist()
    assert found == pytest.approx([0.515 / 0.229, 0.044 / 0.224, -0.406 / 0.225], rel=1e-5)
    assert torch.equal(ColourNormalisation("none")(image), image)


def test_normalisation_and_corners_come_with_the_weights():
    saved = small_deeplab(seed=1).eval()
    other = small_deeplab(normalisation="imagenet", align_corners=False).eval()
    other.load_state_dict(saved.state_dict())
    assert other.align_corners is True
    assert other.options()["align_corners"] is True
    assert other.options()["normalisation"] == "caffe"
    assert torch.equal(other(IMAGES).logits, saved(IMAGES).logits)


def test_averaging_all_buffers_keeps_the_colours():
    network = small_deeplab()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    for _ in range(3):
        average.update_parameters(network)
    assert average.module.normalise.kind() == "caffe"
    assert average.module.align_corners is True


def test_unknown_colours_keep_their_numbers_and_have_no_name():
    colours = ColourNormalisation("caffe")
    colours.mean.add_(1)
    assert colours.kind() == "custom"
    assert colours.describe()["mean"] == pytest.approx([105.00699, 117.66877, 123.67891])


def test_parameter_groups_hold_every_trained_parameter_once():
    network = small_deeplab(features="projection")
    backbone, head = parameter_groups(network, 2.5e-4)
    assert (backbone["lr"], head["lr"]) == (2.5e-4, 2.5e-3)
    found = {id(p) for p in backbone["params"]} | {id(p) for p in head["params"]}
    assert found == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(backbone["params"]) + len(head["params"]) == len(found)
    assert {id(p) for p in backbone["params"]} <= {id(p) for p in network.backbone.parameters()}


def test_a_network_without_a_backbone_is_one_group():
    (group,) = parameter_groups(torch.nn.Linear(2, 2), 0.1)
    assert (group["lr"], len(group["params"])) == (0.1, 2)


def test_conventions_of_torchvision():
    network = DeepLab(replace(TORCHVISION, backbone="resnet14", width=8))
    assert network.align_corners is False
    assert network.normalise.kind() == "imagenet"
    assert network.backbone.layer2[0].conv2.stride == (2, 2)
    assert network.backbone.maxpool.ceil_mode is False


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"backbone": "vgg16"},
            "DeepLab: expected backbone resnet14, resnet26, resnet50, resnet101, resnet152 or "
            "\"timm/<name>\", got 'vgg16'.",
        ),
        (
            {"head": "dlv3"},
            'DeepLab: expected head "dlv2" or "dlv2_gn", got \'dlv3\'. '
            'Hint: "dlv2" is the plain head of DeepLab-V2, "dlv2_gn" that of ProDA.',
        ),
        (
            {"head": "dlv2_gn"},
            'DeepLab: expected features "bottleneck", "backbone" or "projection" with the head '
            "'dlv2_gn', got 'branches'.",
        ),
        (
            {"aspp_branches": 3},
            "SumHead: expected aspp_branches of 4, or 2 for old weights, got 3.",
        ),
        (
            {"normalisation": "zero"},
            'ColourNormalisation: expected kind "caffe" or "imagenet" or "none", got \'zero\'.',
        ),
        (
            {"backbone": "timm/resnet50", "stems": "per_domain"},
            'DeepLab: expected stems "shared" and no checkpointing with the backbone '
            "'timm/resnet50', got 'per_domain' and False. Hint: both need a resnet.",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        DeepLab(replace(SMALL, **changes))
