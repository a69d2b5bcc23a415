"""Descriptions of networks and lists of classes, and the toy network itself."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from reference.data.classes import CITYSCAPES, ClassList
from reference.networks.output import build, describe, first_network, in_words
from reference.networks.release import class_list
from reference.networks.settings import NetworkSettings, ToyOptions
from reference.networks.toy import SegmentationNetwork
from reference.run.folder import as_plain
from tests.reference.small_networks import IMAGES, build_network, refuses, small_deeplab


def test_weights_depend_on_the_seed_and_leave_the_random_state_alone():
    description = describe(small_deeplab())
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (build(description, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.rand(1) == expected
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.branches.0.weight"], other["head.branches.0.weight"])


def test_the_first_network_has_an_output_per_class_and_the_weights_of_the_seed():
    network, report = first_network(NetworkSettings(kind="toy"), 3, 7)
    assert report is None
    assert network(IMAGES).logits.shape == (3, 3, 4, 6)
    expected = build_network(seed=7, num_classes=3).state_dict()
    assert all(torch.equal(expected[n], v) for n, v in network.state_dict().items())


def test_a_toy_run_imports_no_other_network():
    program = (
        "import sys; from reference.networks.output import first_network;"
        "from reference.networks.settings import NetworkSettings;"
        "first_network(NetworkSettings(kind='toy'), 3, 0);"
        "print(*sorted(m for m in sys.modules if m.startswith('reference.networks.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    names = [name.rpartition(".")[2] for name in done.stdout.split()]
    assert names == ["output", "settings", "toy"], done.stderr


def test_the_head_is_named_in_words():
    assert in_words(build_network(seed=0, feature_dim=32)) == "toy network, 32 features"
    assert in_words(small_deeplab(aspp_branches=2)) == (
        "DeepLab, backbone resnet14, head dlv2 of 2 branches, 38 features (branches), colours caffe"
    )


class Wrapped(SegmentationNetwork):
    """Another network, though a subclass of one that can be described."""


@pytest.mark.parametrize("network", [nn.Identity(), Wrapped(ToyOptions())])
def test_other_classes_are_refused(network):
    known, got = "SegmentationNetwork or DeepLab or LiteNetwork", type(network).__name__
    with refuses(f"describe: expected network to be {known}, got {got}.", TypeError):
        describe(network)


@pytest.mark.parametrize(("kind", "options", "sentence"), [
    ("unet", {}, 'build: expected a description with "network" of toy or deeplab or lite and'),
    ("toy", {"depth": 3}, "build: expected options of types that fit, got {'depth': 3} (ToyOp"),
    ("toy", {"near_width": "8"}, "build: expected options of types that fit, got {'near_"),
    ("deeplab", {"stems": "two"}, 'DeepLab: expected stems "shared" or "per_domain", got'),
])  # fmt: skip
def test_descriptions_that_build_nothing_are_refused(kind, options, sentence):
    with refuses(sentence):
        build({"network": kind, "options": options})


def test_class_lists_survive_json():
    own = ClassList(
        "mine", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), {"miou2": (0, 1), "sky": (1,)},
        ((1, 4), (2,)), (((9, 9, 9),), ()), ((7, 7, 7),),
    )  # fmt: skip
    assert class_list(json.loads(json.dumps(as_plain(own)))) == own
    # Means are optional: all classes, or those of the papers.
    assert class_list({"names": ["a"], "colours": [[0, 0, 0]]}).means == {"miou1": (0,)}
    city = as_plain(CITYSCAPES)
    assert class_list({**city, "means": None}).means == CITYSCAPES.means


# The toy network.


def test_logits_and_features_come_at_stride_4():
    network = build_network(seed=0)
    logits, features = network(torch.rand(2, 3, 24, 40))
    assert (logits.shape, features.shape) == ((2, 19, 6, 10), (2, 64, 6, 10))
    assert 250_000 < sum(p.numel() for p in network.parameters()) < 350_000
    assert features.min() < 0 < features.max()
    torch.testing.assert_close(network.head(features), logits)


def test_an_image_is_seen_the_same_alone_and_in_company():
    network = build_network(seed=0).train()
    together, alone = network(IMAGES).logits[:1], network(IMAGES[:1]).logits
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (20, 16)])
def test_images_of_any_size_are_seen_at_a_quarter_of_it_rounded_up(size):
    logits, features = build_network(seed=0)(torch.rand(1, 3, *size))
    grid = tuple(-(-side // 4) for side in size)
    assert logits.shape[2:] == features.shape[2:] == grid
    assert logits.isfinite().all()
