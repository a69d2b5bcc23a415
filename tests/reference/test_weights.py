"""Weights of others: three namings read back bit for bit, everything that does not fit named."""

from __future__ import annotations

import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file

from reference.networks.weights import load_weights, read_weights
from tests.reference.small_networks import (
    caffe_names,
    lively,
    small_deeplab,
    torchvision_names,
)

BACKBONE_TENSORS = 85
COUNTERS = 17


def assert_same_backbone(network, theirs):
    ours = network.backbone.state_dict()
    for name, value in theirs.backbone.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(ours[name], value), name


@pytest.fixture
def donor():
    return lively(small_deeplab(seed=5))


def test_two_different_backbones_are_told_apart(donor):
    with pytest.raises(AssertionError, match=re.escape("conv1.weight")):
        assert_same_backbone(small_deeplab(), donor)


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("front", ["", "module.", "backbone.", "_orig_mod.module."])
def test_torchvision_naming(tmp_path, donor, nest, front):
    state = {f"{front}{name}": value for name, value in torchvision_names(donor).items()}
    path = tmp_path / "resnet.pth"
    torch.save({nest: state, "epoch": 90} if nest else state, path)
    network = small_deeplab()
    head = {n: v.clone() for n, v in network.head.state_dict().items()}
    report = load_weights(network, path)
    assert_same_backbone(network, donor)
    assert report.naming == "torchvision or timm"
    assert report.unexpected == (f"{front}fc.weight", f"{front}fc.bias")
    assert report.missing == tuple(f"head.{name}" for name in head)
    assert report.mismatched == ()
    assert all(torch.equal(head[n], v) for n, v in network.head.state_dict().items())


def test_timm_naming_from_safetensors(tmp_path, donor):
    path = tmp_path / "model.safetensors"
    save_file(torchvision_names(donor), path)
    network = small_deeplab()
    report = load_weights(network, path)
    assert_same_backbone(network, donor)
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight"]


@pytest.mark.parametrize("front", ["", "Scale.", "module.Scale."])
def test_old_caffe_naming_fills_backbone_and_head(tmp_path, donor, front):
    path = tmp_path / "deeplab.pth"
    # Old files are not archives.
    torch.save(caffe_names(donor, front=front), path, _use_new_zipfile_serialization=False)
    network = small_deeplab()
    report = load_weights(network, path)
    assert_same_backbone(network, donor)
    for name, value in donor.head.state_dict().items():
        assert torch.equal(network.head.state_dict()[name], value)
    assert report.naming == "caffe"
    assert report.missing == report.unexpected == report.mismatched == report.warnings == ()


def test_a_head_for_other_classes_is_reported_and_left_alone(tmp_path, donor):
    state = caffe_names(donor, front="Scale.")
    for number in range(4):
        state[f"Scale.layer5.conv2d_list.{number}.weight"] = torch.ones(21, 256, 3, 3)
        state[f"Scale.layer5.conv2d_list.{number}.bias"] = torch.ones(21)
    path = tmp_path / "init.pth"
    torch.save(state, path)
    network = small_deeplab()
    before = {n: v.clone() for n, v in network.head.state_dict().items()}
    report = load_weights(network, path)
    assert report.mismatched[0] == (
        "head.branches.0.weight",
        (19, 256, 3, 3),
        (21, 256, 3, 3),
    )
    assert len(report.mismatched) == 8
    assert all(torch.equal(before[n], v) for n, v in network.head.state_dict().items())


def test_of_two_heads_the_one_on_the_last_map_is_read(tmp_path, donor):
    state = caffe_names(donor, layer="layer6")
    for number in range(4):
        state[f"layer5.conv2d_list.{number}.weight"] = torch.ones(19, 128, 3, 3)
        state[f"layer5.conv2d_list.{number}.bias"] = torch.ones(19)
    path = tmp_path / "multi_level.pth"
    torch.save(state, path)
    network = small_deeplab()
    report = load_weights(network, path)
    for name, value in donor.head.state_dict().items():
        assert torch.equal(network.head.state_dict()[name], value)
    assert len(report.unexpected) == 8
    assert all(name.startswith("layer5.") for name in report.unexpected)


def test_two_branches_read_old_weights_and_name_the_others(tmp_path, donor):
    path = tmp_path / "old.pth"
    torch.save(caffe_names(donor), path)
    network = small_deeplab(aspp_branches=2)
    report = load_weights(network, path)
    assert set(report.unexpected) == {
        f"layer5.conv2d_list.{number}.{kind}" for number in (2, 3) for kind in ("weight", "bias")
    }
    assert torch.equal(network.head.branches[1].weight, donor.head.branches[1].weight)


def test_a_target_stem_is_read_where_there_is_one_and_copied_where_not(tmp_path, donor):
    path = tmp_path / "shared.pth"
    torch.save(torchvision_names(donor), path)
    network = small_deeplab(stems="per_domain")
    load_weights(network, path)
    assert torch.equal(network.backbone.target.conv1.weight, donor.backbone.conv1.weight)
    own = torchvision_names(donor)
    own |= {
        f"target_{n}": v + 1 for n, v in own.items() if n.startswith(("conv1", "bn1", "layer1"))
    }
    torch.save(own, path)
    load_weights(network, path)
    assert torch.equal(network.backbone.target.conv1.weight, donor.backbone.conv1.weight + 1)
    assert torch.equal(network.backbone.conv1.weight, donor.backbone.conv1.weight)


def test_own_files_bring_colours_and_corners(tmp_path, donor):
    path = tmp_path / "own.pth"
    state = {f"module._orig_mod.{name}": value for name, value in donor.state_dict().items()}
    torch.save({"state_dict": state}, path)
    network = small_deeplab(normalisation="none", align_corners=False)
    report = load_weights(network, path)
    assert report.naming == "own"
    assert report.missing == report.unexpected == report.mismatched == report.warnings == ()
    assert network.align_corners is True
    assert network.normalise.kind() == "caffe"


def test_conventions_that_do_not_go_with_the_file_are_said(tmp_path, donor):
    path = tmp_path / "resnet.pth"
    torch.save(torchvision_names(donor), path)
    assert load_weights(small_deeplab(), path).warnings == (
        "files named as in torchvision or timm usually go with normalisation='imagenet', "
        "the network has 'caffe'",
        "files named as in torchvision or timm usually go with stride_in_1x1=False, "
        "the network has True",
        "files named as in torchvision or timm usually go with ceil_mode=False, "
        "the network has True",
    )


def test_the_report_shows_counts_and_first_names(tmp_path, donor):
    path = tmp_path / "resnet.pth"
    torch.save(torchvision_names(donor), path)
    network = small_deeplab(normalisation="imagenet", stride_in_1x1=False, ceil_mode=False)
    assert str(load_weights(network, path)).splitlines() == [
        f"weights {path}, named as in torchvision or timm",
        f"  matched           {BACKBONE_TENSORS + COUNTERS}",
        "  missing           8: head.branches.0.weight, head.branches.0.bias, "
        "head.branches.1.weight, head.branches.1.bias, head.branches.2.weight and 3 more",
        "  unexpected        2: fc.weight, fc.bias",
        "  shape mismatches  0",
    ]


@pytest.mark.parametrize(
    ("damage", "filled", "first", "begins"),
    [
        (
            lambda s: s.pop("layer3.0.conv2.weight"),
            84,
            "backbone.layer3.0.conv2.weight",
            "conv1.weight",
        ),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(3)}),
            84,
            "backbone.bn1.bias",
            "conv1.weight",
        ),
        (
            lambda s: [s.update({f"net/{name}": s.pop(name)}) for name in list(s)],
            0,
            "backbone.conv1.weight",
            "net/conv1.weight",
        ),
    ],
)
def test_a_backbone_that_is_not_filled_stops_and_changes_nothing(
    tmp_path, donor, damage, filled, first, begins
):
    state = torchvision_names(donor)
    damage(state)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    network = small_deeplab()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sentence = (
        f"load_weights: expected {path} to fill all 85 tensors of the backbone, got {filled}; "
        f"the first unfilled is {first}, and the file begins with {begins}. "
        "Hint: the file belongs to another network; compare depth and naming."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        load_weights(network, path)
    assert all(torch.equal(before[n], v) for n, v in network.state_dict().items())


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    path, mark = tmp_path / "weights.pth", tmp_path / "it-ran"
    if zipped:
        torch.save({"state_dict": _Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(_Bomb(mark), protocol=2))
    sentence = (
        f"read_stored: expected tensors and plain values in {path}, got a pickle that torch "
        "refuses to load without running code, or no pickle. Hint: save the state dict alone, "
        "or convert the file to safetensors where you trust it."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        load_weights(small_deeplab(), path)
    assert not mark.exists()


def test_the_bomb_is_live(tmp_path):
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


def test_files_without_weights_are_refused(tmp_path):
    path = tmp_path / "none.pth"
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'read_stored: expected a file {path}, got none.')}$"
    ):
        read_weights(path)
    nests = "state_dict, model_state_dict, model_state, model, network, student, teacher"
    for held, found in [({"epoch": 3, "lr": 0.1}, "a table of epoch, lr"), ([1, 2], "list")]:
        torch.save(held, path)
        sentence = (
            f"read_weights: expected a table of tensors in {path}, or one inside {nests}, "
            f"got {found}."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            read_weights(path)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_damaged_files_are_refused(tmp_path, donor, name):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(torchvision_names(donor), path)
    else:
        save_file(torchvision_names(donor), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError) as caught:
        read_weights(path)
    sentence = (
        rf"read_stored: expected a readable file of weights, got {re.escape(str(path))} "
        r"\(.+\)\. Hint: the file is damaged; download or copy it again\."
    )
    assert re.fullmatch(sentence, str(caught.value))
