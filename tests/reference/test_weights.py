"""Weights of others: families told apart, tensors read back bit for bit, the rest in a sentence."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from reference.networks.output import first_network
from reference.networks.settings import DeepLabOptions, NetworkSettings
from reference.networks.tensor_files import DamagedFileError, read_stored
from reference.networks.weights import family_of, fill_backbone, read_weights, translate
from tests.reference.small_networks import (
    SMALL,
    caffe_names,
    lively,
    small_deeplab,
    torchvision_names,
)

BACKBONE_TENSORS = 85


def load_weights(network, path):
    state = read_weights(path)
    return fill_backbone(network, translate(state, network), path, family=family_of(state))


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
@pytest.mark.parametrize("front", ["", "module.", "_orig_mod.module.backbone."])
def test_torchvision_naming(tmp_path, donor, nest, front):
    state = {f"{front}{name}": value for name, value in torchvision_names(donor).items()}
    path = tmp_path / "resnet.pth"
    torch.save({nest: state, "epoch": 90} if nest else state, path)
    network = small_deeplab()
    head = {n: v.clone() for n, v in network.head.state_dict().items()}
    report = load_weights(network, path)
    assert_same_backbone(network, donor)
    assert report.family == "torchvision"
    assert report.unexpected == (f"{front}fc.weight", f"{front}fc.bias")
    assert report.missing == tuple(f"head.{name}" for name in head)
    assert report.mismatched == ()
    assert all(torch.equal(head[n], v) for n, v in network.head.state_dict().items())


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
    assert report.family == "caffe"
    assert report.missing == report.unexpected == report.mismatched == ()


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
    assert report.mismatched[0] == ("head.branches.0.weight", (19, 256, 3, 3), (21, 256, 3, 3))
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
    assert all(name.startswith("layer5.") for name in report.unexpected)
    assert len(report.unexpected) == 8


def test_a_target_stem_is_read_where_there_is_one_and_copied_where_not(tmp_path, donor):
    path = tmp_path / "shared.pth"
    own = torchvision_names(donor)
    torch.save(own, path)
    network = small_deeplab(stems="per_domain")
    load_weights(network, path)
    assert torch.equal(network.backbone.target.conv1.weight, donor.backbone.conv1.weight)
    stem = {f"target_{n}": v + 1 for n, v in own.items() if n.startswith(("conv1", "bn1"))}
    torch.save(own | stem, path)
    load_weights(network, path)
    assert torch.equal(network.backbone.target.conv1.weight, donor.backbone.conv1.weight + 1)
    assert torch.equal(network.backbone.conv1.weight, donor.backbone.conv1.weight)


def test_own_files_bring_colours_and_corners(tmp_path, donor):
    path = tmp_path / "own.pth"
    state = {f"module._orig_mod.{name}": value for name, value in donor.state_dict().items()}
    torch.save({"state_dict": state}, path)
    network = small_deeplab(normalisation="none", align_corners=False)
    report = load_weights(network, path)
    assert (report.family, report.missing, report.unexpected) == ("own", (), ())
    assert network.align_corners is True
    assert network.normalise.kind() == "caffe"


def test_wide_colours_are_told_from_batch_statistics(donor):
    state = torchvision_names(donor)
    assert family_of(state) == "torchvision"
    # Filters of the same size that read 0..255, a spread of 65, give 65 squared the variance.
    assert family_of(state | {"bn1.running_var": state["bn1.running_var"] * 65**3}) == "caffe"
    assert family_of({"stages.0.blocks.1.weight": torch.ones(2)}) == "timm"


IMAGENET = {
    "normalisation": "imagenet",
    "align_corners": False,
    "stride_in_1x1": False,
    "ceil_mode": False,
}


@pytest.mark.parametrize(
    ("naming", "family", "chosen"),
    [
        (torchvision_names, "auto", IMAGENET),
        (torchvision_names, "timm", IMAGENET),
        (torchvision_names, "caffe", {**dict.fromkeys(IMAGENET, True), "normalisation": "caffe"}),
        (caffe_names, "auto", {**dict.fromkeys(IMAGENET, True), "normalisation": "caffe"}),
    ],
)
def test_the_family_sets_colours_strides_and_corners(tmp_path, donor, naming, family, chosen):
    path = tmp_path / "resnet.pth"
    torch.save(naming(donor), path)
    settings = NetworkSettings(deeplab=SMALL, weights=path, family=family)
    network, report = first_network(settings, 19, 0)
    assert_same_backbone(network, donor)
    assert report.set_options == chosen
    assert {name: network.options()[name] for name in chosen} == chosen
    assert str(report).splitlines()[0].startswith(f"weights {path}, family ")
    assert len(str(report).splitlines()) <= 4


def test_an_option_that_contradicts_the_file_is_refused_and_can_be_insisted_on(tmp_path, donor):
    path = tmp_path / "caffe.pth"
    torch.save(caffe_names(donor), path)
    options = replace(SMALL, normalisation="imagenet")
    settings = NetworkSettings(deeplab=options, weights=path)
    sentence = (
        f"train: expected normalisation 'caffe' with {path}, which is of the family caffe, got "
        "'imagenet'. Hint: leave --network.deeplab.normalisation out, or insist on it by naming "
        "the family with --network.family."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        first_network(settings, 19, 0)
    network, _ = first_network(replace(settings, family="caffe"), 19, 0)
    assert network.options()["normalisation"] == "imagenet"


def test_a_run_without_weights_must_say_so():
    settings = NetworkSettings(deeplab=SMALL)
    with pytest.raises(ValueError, match=r"^train: expected a file of pre-trained weights, got "):
        first_network(settings, 4, 0)
    network, report = first_network(replace(settings, random_weights=True), 4, 0)
    assert (network.num_classes, network.feature_dim, report) == (4, 16, None)


def head_alone(state):
    for name in [n for n in state if not n.startswith("fc.")]:
        del state[name]


@pytest.mark.parametrize(
    ("damage", "filled", "hint"),
    [
        (lambda s: s.pop("layer3.0.conv2.weight"), 84, "by its names the file is of a resnet with"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), 84, "by its names the file is of"),
        (head_alone, 0, "the file belongs to another network, or holds a head alone; it begins"),
    ],
)
def test_a_backbone_that_is_not_filled_stops_and_changes_nothing(
    tmp_path, donor, damage, filled, hint
):
    state = torchvision_names(donor)
    damage(state)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    network = small_deeplab()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_weights(network, path)
    assert str(caught.value).startswith(
        f"load_weights: expected {path} to fill all {BACKBONE_TENSORS} tensors of the backbone, "
        f"got {filled}; the first unfilled is backbone."
    )
    assert f"Hint: {hint}" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert all(torch.equal(before[n], v) for n, v in network.state_dict().items())


def test_weights_with_nan_are_refused(tmp_path, donor):
    state = torchvision_names(donor)
    state["layer2.0.conv1.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"got NaN or infinity in backbone\.layer2\.0\.conv1\."):
        load_weights(small_deeplab(), tmp_path / "nan.pth")


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
    with pytest.raises(
        ValueError, match=r"^read_stored: expected tensors and plain values in "
    ) as e:
        read_stored(path)
    assert not isinstance(e.value, DamagedFileError)
    assert not mark.exists()


def test_the_bomb_is_live(tmp_path):
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


def test_files_without_weights_are_refused(tmp_path):
    path = tmp_path / "none.pth"
    sentence = f"read_stored: expected a file {path}, got none."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_weights(path)
    with pytest.raises(ValueError, match=r"got a folder\. Hint: name a file in it, such as last"):
        read_stored(tmp_path)
    for held, got in [({"epoch": 3, "lr": 0.1}, "a table of epoch, lr"), ([1, 2], "list")]:
        torch.save(held, path)
        with pytest.raises(
            ValueError, match=rf"^read_weights: expected a table of .*, got {got}\."
        ):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"\n <!DOCTYPE html><html>404</html>", "which is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of git-LFS"),
        (b"", "which holds nothing"),
        (b"\0" * 4096, "which holds zeros"),
        (b"PK\x03\x04 and no more", "an archive that is cut short or altered"),
    ],
)
def test_what_is_no_file_of_tensors_is_named(tmp_path, content, got):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=re.escape(got)) as caught:
        read_stored(path)
    assert str(caught.value).startswith(
        f"read_stored: expected a whole file of tensors, got {path}"
    )


def test_an_archive_of_something_else_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resnet/model.txt", "no tensors")
    with pytest.raises(
        DamagedFileError, match=r"a zip archive of resnet/model\.txt\. Hint: unpack"
    ):
        read_stored(path)


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_files_that_are_cut_short_are_refused(tmp_path, donor, name, share):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(torchvision_names(donor), path)
    else:
        save_file(torchvision_names(donor), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DamagedFileError, match=r"^read_stored: expected a whole file of tensors, "):
        read_stored(path)


def flipped(content: bytearray, place: int) -> None:
    content[place] ^= 0x10


def zeroed(content: bytearray, place: int) -> None:
    content[place : place + 4096] = bytes(4096)


def swapped(content: bytearray, place: int) -> None:
    first, second = content[place : place + 512], content[place + 512 : place + 1024]
    content[place : place + 1024] = second + first


@pytest.mark.parametrize("damage", [flipped, zeroed, swapped])
def test_altered_numbers_are_refused_or_the_same(tmp_path, damage):
    """Torch alone would read other numbers; here every damage is named or harmless."""
    path = tmp_path / "last.pth"
    generator = torch.Generator().manual_seed(0)
    held = {"a": torch.rand(3000, generator=generator), "b": torch.rand(900, generator=generator)}
    torch.save({**held, "iteration": 7}, path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole) - 1024, 331):
        content = bytearray(whole)
        damage(content, place)
        path.write_bytes(content[: len(whole)])
        try:
            again = read_stored(path)
        except ValueError:
            refused += 1
        else:
            assert again["iteration"] == 7
            assert all(torch.equal(again[name], value) for name, value in held.items())
    assert refused >= 30


def test_a_damage_is_named_by_its_place_in_the_archive(tmp_path):
    path = tmp_path / "last.pth"
    torch.save({"a": torch.arange(5000.0)}, path)
    content = bytearray(path.read_bytes())
    flipped(content, len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"in which last/data/0 has another checksum"):
        read_stored(path)


def test_defaults_are_those_of_caffe():
    options = DeepLabOptions()
    assert (options.normalisation, options.align_corners, options.ceil_mode) == (
        "caffe",
        True,
        True,
    )
