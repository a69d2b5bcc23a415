"""A description in JSON and the state dict give the same network, bit for bit."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from reference.networks.card import build, describe, in_words
from reference.networks.toy import SegmentationNetwork, build_network
from tests.reference.small_networks import small_deeplab

IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


NETWORKS = {
    "toy": lambda: build_network(seed=3, feature_dim=32),
    "another toy": lambda: SegmentationNetwork(dilations=(1, 3), near_width=16),
    "deeplab": lambda: small_deeplab(seed=3),
    "group norm": lambda: small_deeplab(
        seed=3, head="dlv2_gn", features="projection", stems="per_domain"
    ),
    "two branches": lambda: small_deeplab(
        seed=3, aspp_branches=2, features="backbone", normalisation="imagenet"
    ),
}


@pytest.mark.parametrize("make", list(NETWORKS.values()), ids=list(NETWORKS))
def test_a_description_survives_json_and_rebuilds_the_network(make):
    network = make()
    description = json.loads(json.dumps(describe(network)))
    again = build(description)
    again.load_state_dict(network.state_dict())
    ours, theirs = network.eval()(IMAGES), again.eval()(IMAGES)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.features, theirs.features)
    assert describe(again) == description


def test_weights_depend_on_the_seed_and_leave_the_random_state_alone():
    description = describe(small_deeplab())
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (build(description, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.rand(1) == expected
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.branches.0.weight"], other["head.branches.0.weight"])


def test_corners_that_came_with_weights_are_described():
    network = small_deeplab(align_corners=True)
    network.load_state_dict(small_deeplab(align_corners=False).state_dict())
    assert describe(network)["options"]["align_corners"] is False


def test_the_head_is_named_in_words():
    assert in_words(build_network(seed=0, feature_dim=32)) == "toy network, 32 features"
    assert in_words(small_deeplab(aspp_branches=2)) == (
        "DeepLab, backbone resnet14, head dlv2 of 2 branches, 38 features (branches), colours caffe"
    )
    assert in_words(small_deeplab(head="dlv2_gn", features="bottleneck")) == (
        "DeepLab, backbone resnet14, head dlv2_gn, 256 features (bottleneck), colours caffe"
    )


def test_another_class_is_refused():
    sentence = "describe: expected network to be SegmentationNetwork or DeepLab, got Linear."
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        describe(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (
            {"network": "unet", "options": {}},
            'build: expected a description with "network" of toy or deeplab and a table of '
            "options, got network 'unet' and options dict. Hint: describe(network) writes one.",
        ),
        (
            {"network": "toy"},
            'build: expected a description with "network" of toy or deeplab and a table of '
            "options, got network 'toy' and options NoneType. "
            "Hint: describe(network) writes one.",
        ),
        (
            {"network": "toy", "options": {"depth": 3}},
            "build: expected options among stem_width, near_width, far_width, dilations, "
            "feature_dim, num_classes, got depth. "
            "Hint: the description was written by another version.",
        ),
        (
            {"network": "deeplab", "options": {"backbone": "vgg16"}},
            "DeepLab: expected backbone resnet14, resnet26, resnet50, resnet101, resnet152 or "
            "\"timm/<name>\", got 'vgg16'.",
        ),
    ],
)
def test_descriptions_that_build_nothing_are_refused(description, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        build(description)


def test_options_of_a_wrong_type_are_refused():
    options = {"backbone": "resnet14", "width": "8"}
    with pytest.raises(ValueError) as caught:
        build({"network": "deeplab", "options": options})
    sentence = (
        rf"build: expected options of types that fit, got {re.escape(str(options))} "
        r"\((.|\n)+\)\. Hint: describe\(network\) writes them\."
    )
    assert re.fullmatch(sentence, str(caught.value))
