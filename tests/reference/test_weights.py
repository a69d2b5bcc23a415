"""Weights of others: families told apart, tensors read back bit for bit, the rest in a sentence."""

import pickle
import re
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from reference.networks.output import first_network
from reference.networks.settings import NetworkSettings
from reference.networks.tensor_files import read_stored
from reference.networks.weights import family_of, fill_backbone, read_weights, translate
from tests.reference.small_networks import (
    SMALL,
    Bomb,
    caffe_names,
    lively,
    refuses,
    small_deeplab,
    torchvision_names,
)


def load_weights(network, state, path):
    torch.save(state, path)
    held = read_weights(path)
    return fill_backbone(network, translate(held, network), path, family=family_of(held))


def assert_same(network, donor, part="backbone"):
    ours = getattr(network, part).state_dict()
    for name, value in getattr(donor, part).state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(ours[name], value), name


@pytest.fixture
def donor():
    return lively(small_deeplab(seed=5))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def test_two_different_backbones_are_told_apart(donor):
    with pytest.raises(AssertionError, match=re.escape("conv1.weight")):
        assert_same(small_deeplab(), donor)


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("front", ["", "module.", "_orig_mod.module.backbone."])
def test_torchvision_naming(path, donor, nest, front):
    state = {f"{front}{name}": value for name, value in torchvision_names(donor).items()}
    network = small_deeplab()
    report = load_weights(network, {nest: state, "epoch": 90} if nest else state, path)
    assert_same(network, donor)
    assert_same(network, small_deeplab(), "head")
    assert report.family == "torchvision"
    assert report.unexpected == (f"{front}fc.weight", f"{front}fc.bias")
    assert report.missing == tuple(f"head.{name}" for name in network.head.state_dict())
    assert report.mismatched == ()


@pytest.mark.parametrize("front", ["", "Scale.", "module.Scale."])
def test_old_caffe_naming_fills_backbone_and_head(path, donor, front):
    network = small_deeplab()
    report = load_weights(network, caffe_names(donor, front=front), path)
    assert_same(network, donor)
    assert_same(network, donor, "head")
    assert report.family == "caffe"
    assert report.missing == report.unexpected == report.mismatched == ()


def test_old_files_are_not_archives(path, donor):
    torch.save(caffe_names(donor), path, _use_new_zipfile_serialization=False)
    assert family_of(read_weights(path)) == "caffe"


def test_a_head_for_other_classes_is_reported_and_left_alone(path, donor):
    other = small_deeplab(num_classes=21)
    state = caffe_names(donor, front="Scale.") | caffe_names(other, front="Scale.")
    network = small_deeplab()
    report = load_weights(network, state, path)
    assert report.mismatched[0] == ("head.branches.0.weight", (19, 256, 3, 3), (21, 256, 3, 3))
    assert len(report.mismatched) == 8
    assert_same(network, small_deeplab(), "head")


def test_of_two_heads_the_one_on_the_last_map_is_read(path, donor):
    state = caffe_names(donor, layer="layer6")
    for number in range(4):
        state[f"layer5.conv2d_list.{number}.weight"] = torch.ones(19, 128, 3, 3)
        state[f"layer5.conv2d_list.{number}.bias"] = torch.ones(19)
    network = small_deeplab()
    report = load_weights(network, state, path)
    assert_same(network, donor, "head")
    assert all(name.startswith("layer5.") for name in report.unexpected)
    assert len(report.unexpected) == 8


def test_a_target_stem_is_read_where_there_is_one_and_copied_where_not(path, donor):
    own = torchvision_names(donor)
    network = small_deeplab(stems="per_domain")
    load_weights(network, own, path)
    assert torch.equal(network.backbone.target.conv1.weight, donor.backbone.conv1.weight)
    stem = {f"target_{n}": v + 1 for n, v in own.items() if n.startswith(("conv1", "bn1"))}
    load_weights(network, own | stem, path)
    assert torch.equal(network.backbone.target.conv1.weight, donor.backbone.conv1.weight + 1)
    assert torch.equal(network.backbone.conv1.weight, donor.backbone.conv1.weight)


def test_own_files_bring_colours_and_corners(path, donor):
    state = {f"module._orig_mod.{name}": value for name, value in donor.state_dict().items()}
    network = small_deeplab(normalisation="none", align_corners=False)
    report = load_weights(network, {"state_dict": state}, path)
    assert (report.family, report.missing, report.unexpected) == ("own", (), ())
    assert network.align_corners is True
    assert network.normalise.kind() == "caffe"


def test_wide_colours_are_told_from_batch_statistics(donor):
    state = torchvision_names(donor)
    assert family_of(state) == "torchvision"
    # Filters of the same size that read 0..255, a spread of 65, give 65 squared the variance.
    assert family_of(state | {"bn1.running_var": state["bn1.running_var"] * 65**3}) == "caffe"
    assert family_of({"stages.0.blocks.1.weight": torch.ones(2)}) == "timm"


FLAGS = ("align_corners", "stride_in_1x1", "ceil_mode")
IMAGENET = {"normalisation": "imagenet", **dict.fromkeys(FLAGS, False)}
CAFFE = {"normalisation": "caffe", **dict.fromkeys(FLAGS, True)}


@pytest.mark.parametrize(("naming", "family", "chosen"), [
    (torchvision_names, "auto", IMAGENET), (torchvision_names, "timm", IMAGENET),
    (torchvision_names, "caffe", CAFFE), (caffe_names, "auto", CAFFE),
])  # fmt: skip
def test_the_family_sets_colours_strides_and_corners(path, donor, naming, family, chosen):
    torch.save(naming(donor), path)
    settings = NetworkSettings(deeplab=SMALL, weights=path, family=family)
    network, report = first_network(settings, 19, 0)
    assert_same(network, donor)
    assert report.set_options == chosen
    assert {name: network.options()[name] for name in chosen} == chosen
    assert str(report).splitlines()[0].startswith(f"weights {path}, family ")
    assert len(str(report).splitlines()) <= 4


def test_an_option_that_contradicts_the_file_is_refused_and_can_be_insisted_on(path, donor):
    torch.save(caffe_names(donor), path)
    options = replace(SMALL, normalisation="imagenet")
    settings = NetworkSettings(deeplab=options, weights=path)
    with refuses(
        f"train: expected normalisation 'caffe' with {path}, which is of the family caffe, got "
        "'imagenet'. Hint: leave --network.deeplab.normalisation out, or insist on it by naming "
        "the family with --network.family."
    ):
        first_network(settings, 19, 0)
    network, _ = first_network(replace(settings, family="caffe"), 19, 0)
    assert network.options()["normalisation"] == "imagenet"


def test_a_run_without_weights_must_say_so():
    settings = NetworkSettings(deeplab=SMALL)
    with refuses("train: expected a file of pre-trained weights, got none. Hint: give --network."):
        first_network(settings, 4, 0)
    network, report = first_network(replace(settings, random_weights=True), 4, 0)
    assert (network.num_classes, network.feature_dim, report) == (4, 16, None)


@pytest.mark.parametrize(("change", "filled", "hint"), [
    ({"layer3.0.conv2.weight": None}, 84, "by its names the file is of a resnet with 1 block"),
    ({"bn1.bias": torch.zeros(3)}, 84, "by its names the file is of a resnet with 1 block"),
    (None, 0, "the file belongs to another network, or holds a head alone; it begins with fc."),
])  # fmt: skip
def test_a_backbone_that_is_not_filled_stops_and_changes_nothing(path, donor, change, filled, hint):
    state = torchvision_names(donor) | (change or {})
    kept = {n: v for n, v in state.items() if v is not None and (change or n.startswith("fc."))}
    network = small_deeplab()
    with refuses(
        f"load_weights: expected {path} to fill all 85 tensors of the backbone, got {filled}; the "
        "first unfilled is backbone."
    ) as caught:
        load_weights(network, kept, path)
    assert f"Hint: {hint}" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert_same(network, small_deeplab())


def test_weights_with_nan_are_refused(path, donor):
    state = torchvision_names(donor)
    state["layer2.0.conv1.weight"][0] = torch.nan
    with pytest.raises(ValueError, match=r"got NaN or infinity in backbone\.layer2\.0\.conv1\."):
        load_weights(small_deeplab(), state, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(path, tmp_path, zipped):
    mark = tmp_path / "it-ran"
    if zipped:
        torch.save({"state_dict": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    with refuses("read_stored: expected tensors and plain values in "):
        read_stored(path)
    assert not mark.exists()
    # The bomb is live.
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_files_without_weights_are_refused(path, tmp_path):
    with refuses(f"train: expected weights in {path}, got no such file. Hint: docs/data.md says"):
        read_weights(path)
    with pytest.raises(ValueError, match=r"got a folder\. Hint: name a file in it, such as "):
        read_stored(tmp_path)
    for held, got in [({"epoch": 3, "lr": 0.1}, "a table of epoch, lr"), ([1, 2], "list")]:
        torch.save(held, path)
        with pytest.raises(ValueError, match=rf"^read_weights: expected a table .*, got {got}\."):
            read_weights(path)


@pytest.mark.parametrize(("content", "got"), [
    (b"\n <!DOCTYPE html><html>404</html>", "which is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of git-LFS"),
    (b"", "which holds nothing"), (b"\0" * 4096, "which holds zeros"),
    (b"PK\x03\x04 and no more", "an archive that is cut short or altered"),
])  # fmt: skip
def test_what_is_no_file_of_tensors_is_named(path, content, got):
    path.write_bytes(content)
    with refuses("read_stored: expected a whole file of tensors, ") as caught:
        read_stored(path)
    assert f"got {path}, " in str(caught.value)
    assert got in str(caught.value)


def test_an_archive_of_something_else_is_named(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resnet/model.txt", "no tensors")
    with pytest.raises(ValueError, match=r"a zip archive of resnet/model\.txt\. Hint: unp"):
        read_stored(path)


@pytest.mark.parametrize("save", [torch.save, save_file])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_files_that_are_cut_short_are_refused(tmp_path, donor, save, share):
    path = tmp_path / ("cut.pth" if save is torch.save else "cut.safetensors")
    save(torchvision_names(donor), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with refuses("read_stored: expected a whole file of tensors, "):
        read_stored(path)


DAMAGES = {
    "flipped": lambda b, at: b[:at] + bytes([b[at] ^ 16]) + b[at + 1 :],
    "zeroed": lambda b, at: b[:at] + bytes(4096) + b[at + 4096 :],
    "swapped": lambda b, at: b[:at] + b[at + 512 : at + 1024] + b[at : at + 512] + b[at + 1024 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_altered_numbers_are_refused_or_the_same(path, damage):
    """Torch alone would read other numbers; here every damage is named or harmless."""
    generator = torch.Generator().manual_seed(0)
    held = {"a": torch.rand(3000, generator=generator), "b": torch.rand(900, generator=generator)}
    torch.save({**held, "iteration": 7}, path)
    whole = path.read_bytes()
    reasons = []
    for place in range(0, len(whole) - 1024, 331):
        path.write_bytes(DAMAGES[damage](whole, place)[: len(whole)])
        try:
            again = read_stored(path)
        except ValueError as error:
            reasons.append(str(error))
        else:
            assert again["iteration"] == 7
            assert all(torch.equal(again[name], value) for name, value in held.items())
    assert len(reasons) >= 30
    assert any("in which weights/data/0 has another checksum" in reason for reason in reasons)
