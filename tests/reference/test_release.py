"""Weights and card: read back bit for bit, and every way in which they do not belong together."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import reference
from reference.data.classes import CITYSCAPES, ClassList
from reference.networks.output import Output, Segmenter, build, describe, plain_classes
from reference.networks.release import (
    read_checkpoint,
    read_release,
    read_trained,
    renamed_source,
    write_release,
)
from reference.networks.toy import build_network
from tests.reference.small_networks import lively, small_deeplab

IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
OWN = ClassList("mine", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), {"miou2": (0, 1), "sky": (1,)})


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def checkpoint(path: Path, network: Segmenter, classes: ClassList = CITYSCAPES, **more) -> Path:
    held = {
        "description": describe(network),
        "student": network.state_dict(),
        "classes": plain_classes(classes),
        "iteration": 40,
        **more,
    }
    torch.save(held, path)
    return path


def written(folder: Path, network: Segmenter | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = checkpoint(folder / "last.pth", network or small_deeplab(seed=3))
    release = read_checkpoint(path, "student")
    return write_release(folder, release, input_size=(16, 24))


def edit(card: Path, **changes) -> Path:
    held = json.loads(card.read_text())
    card.write_text(json.dumps({k: v for k, v in (held | changes).items() if v is not None}))
    return card


@pytest.mark.parametrize(
    "make",
    [
        lambda: build_network(seed=3),
        lambda: small_deeplab(seed=3),
        lambda: small_deeplab(seed=3, head="dlv2_gn", features="projection", stems="per_domain"),
    ],
    ids=["toy", "dlv2", "dlv2_gn"],
)
def test_a_network_comes_back_bit_for_bit(tmp_path, make):
    network = make()
    if hasattr(network, "backbone"):
        network(IMAGES)  # moves the running statistics
    card = written(tmp_path / "new", network)
    network.eval()
    again = read_trained(card, "student").network
    assert not again.training
    ours, theirs = network(IMAGES), again(IMAGES)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.features, theirs.features)


def test_colours_and_corners_come_from_the_weights_not_from_defaults(tmp_path):
    network = small_deeplab(normalisation="imagenet", align_corners=False).eval()
    network.normalise.mean.add_(0.25)
    card = written(tmp_path, network)
    held = json.loads(card.read_text())
    assert held["align_corners"] is False
    assert held["normalisation"]["kind"] == "custom"
    assert torch.equal(read_release(card).network(IMAGES).logits, network(IMAGES).logits)


def test_the_card_says_what_a_user_must_know(tmp_path):
    network = small_deeplab(num_classes=2)
    path = checkpoint(tmp_path / "last.pth", network, OWN, labelled=[1])
    release = read_checkpoint(path, "student")
    facts = {"scores_percent": {"means": {"sky": 50.0}}}
    card = write_release(tmp_path, release, input_size=(16, 24), facts=facts)
    held = json.loads(card.read_text())
    assert (held["classes"], held["palette"]) == (["road", "sky"], ["#010203", "#040506"])
    assert (held["means"], held["labelled"]) == ({"miou2": [0, 1], "sky": [1]}, [1])
    assert held["normalisation"]["channel_order"] == "BGR"
    assert (held["input_size"], held["stride"], held["align_corners"]) == ([16, 24], 8, True)
    assert (held["source"], held["scores_percent"]) == ("own", facts["scores_percent"])
    again = read_release(card)
    assert (again.classes.names, again.classes.means) == (OWN.names, OWN.means)
    assert again.labelled == (1,)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sha256": None}, '"sha256" of type str in {card}, got NoneType. Hint: python'),
        ({"format": 2}, "format 1 in {card}, got 2, of another version."),
        ({"palette": ["red"] * 19}, "classes with a palette and means in {card}, got ValueError."),
        ({"input_size": [0, 24]}, "input_size of a height and a width in {card}, got [0, 24]."),
        ({"weights": "../model.safetensors"}, "weights beside the card in {card}, got the path .."),
        ({"weights": "other.safetensors"}, "the name of weights beside it, such as model.safeten"),
    ],
)
def test_a_card_that_is_not_whole_is_refused(tmp_path, changes, sentence):
    card = edit(written(tmp_path), **changes)
    sentence = f"read_release: expected {sentence.format(card=card)}"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        read_release(card)


@pytest.mark.parametrize(
    ("content", "got"), [(None, "a card in"), ("{", "a card in"), ("[1]", '"format" of type int')]
)
def test_no_card_and_no_json_are_refused(tmp_path, content, got):
    card = tmp_path / "card.json"
    if content is not None:
        card.write_text(content)
    with pytest.raises(ValueError, match=rf"^read_release: expected {re.escape(got)} "):
        read_release(card)


def test_classes_and_outputs_are_of_one_number(tmp_path):
    card = edit(written(tmp_path), classes=["cat"], palette=["#000000"], means=None)
    with pytest.raises(
        ValueError, match=r"one class per output in .*, got 1 classes and 19 outputs"
    ):
        read_release(card)


def test_weights_of_another_export_are_refused(tmp_path):
    card = written(tmp_path / "a")
    weights = card.parent / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"with SHA-256 \w{12}\.\.\., got \w{12}\.\.\.\. Hint: card "
    ):
        read_release(card)


def test_a_pickle_in_place_of_the_weights_does_not_run(tmp_path):
    card, mark = written(tmp_path), tmp_path / "it-ran"
    content = pickle.dumps(_Bomb(mark), protocol=2)
    (tmp_path / "model.safetensors").write_bytes(content)
    edit(card, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(
        ValueError, match=r"^read_release: expected safetensors in .*, got something"
    ):
        read_release(card)
    torch.save({"description": _Bomb(mark), "student": {}}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"^read_stored: expected tensors and plain values in "):
        read_checkpoint(tmp_path / "bomb.pth", "student")
    assert not mark.exists()


def test_weights_that_do_not_fit_are_refused_without_a_list_of_names(tmp_path):
    card = written(tmp_path)
    held = json.loads(card.read_text())
    held["description"]["options"]["width"] = 16
    card.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"that fit the description, got others \(.+\)") as caught:
        read_release(card)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("which", "seed"), [("student", 1), ("teacher", 2)])
def test_a_checkpoint_gives_the_network_that_is_asked_for(tmp_path, which, seed):
    teacher = lively(small_deeplab(seed=2))
    path = checkpoint(tmp_path / "a.pth", small_deeplab(seed=1), teacher=teacher.state_dict())
    release = read_checkpoint(path, which)
    expected = small_deeplab(seed=1) if which == "student" else lively(small_deeplab(seed=2))
    assert torch.equal(release.network(IMAGES).logits, expected.eval()(IMAGES).logits)
    assert (release.card["iteration"], release.card["which"]) == (40, which)


@pytest.mark.parametrize(
    ("held", "got"),
    [
        (lambda n: n.state_dict(), "got weights alone (115 entries, the first _extra_state). Hint"),
        (lambda n: {"state_dict": n.state_dict()}, "got weights alone (1 entries, the first sta"),
        (lambda n: [1], "got list."),
        (lambda n: {"iteration": 3}, "got iteration."),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path, held, got):
    path = tmp_path / "last.pth"
    torch.save(held(small_deeplab()), path)
    with pytest.raises(ValueError, match=re.escape(got)) as caught:
        read_checkpoint(path, "student")
    assert len(str(caught.value)) < 400


def test_a_run_without_a_moving_average_says_so(tmp_path):
    path = checkpoint(tmp_path / "last.pth", small_deeplab())
    with pytest.raises(ValueError, match=r"a run without a moving average\. Hint: use --which stu"):
        read_checkpoint(path, "teacher")


def test_weights_with_nan_are_refused(tmp_path):
    network = small_deeplab()
    network.head.branches[0].bias.data[0] = torch.nan
    path = checkpoint(tmp_path / "last.pth", network)
    with pytest.raises(
        ValueError, match=r"got NaN or infinity in head\.branches\.0\.bias\. Hint: "
    ):
        read_checkpoint(path, "student")


def test_a_synthia_source_knows_16_classes_and_another_name_changes_that(tmp_path):
    settings = {"data": {"source_set": "synthia"}, "reporting": {"size": [16, 32]}}
    path = checkpoint(tmp_path / "last.pth", small_deeplab(), settings=settings)
    release = read_checkpoint(path, "student")
    assert release.labelled == CITYSCAPES.means["miou16"]
    assert (release.card["source"], release.card["input_size"]) == ("synthia", [16, 32])
    assert renamed_source(release, "gta5").labelled is None


class Louder(Segmenter):
    """What a method makes of a network at test time: logits times a number of its state."""

    def __init__(self, network: Segmenter, factor: torch.Tensor) -> None:
        super().__init__(feature_dim=64, num_classes=19, stride=4, align_corners=False)
        self.network, self.factor = network, factor

    def forward(self, images, domain="target"):
        logits, features = self.network(images, domain)
        return Output(logits * self.factor, features)


@pytest.fixture
def methods(monkeypatch):
    module = ModuleType("reference.methods")
    module.at_test = lambda name, state, network: (
        Louder(network, state["factor"]) if name == "louder" else network
    )
    monkeypatch.setitem(__import__("sys").modules, "reference.methods", module)
    monkeypatch.setattr(reference, "methods", module, raising=False)


@pytest.mark.usefixtures("methods")
def test_a_method_that_changes_the_network_travels_with_it(tmp_path):
    network = build_network(seed=0)
    method = {"name": "louder", "state": {"factor": torch.tensor(3.0)}}
    path = checkpoint(tmp_path / "last.pth", network, method=method)
    release = read_checkpoint(path, "student")
    expected = network.eval()(IMAGES).logits
    assert torch.equal(release.network(IMAGES).logits, 3 * expected)
    assert torch.equal(
        read_checkpoint(path, "student", plain=True).network(IMAGES).logits, expected
    )
    card = write_release(tmp_path, release, input_size=(16, 24))
    assert torch.equal(read_release(card).network(IMAGES).logits, 3 * expected)
    method["state"]["optimiser"] = {"lr": 1}
    release = read_checkpoint(checkpoint(path, network, method=method), "student")
    with pytest.raises(
        ValueError, match=r"whose state is tensors alone, got method\.optimiser of l"
    ):
        write_release(tmp_path / "b", release, input_size=(16, 24))
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("methods")
@pytest.mark.parametrize("name", ["bicl", "quiet"])
def test_a_method_that_leaves_the_network_leaves_no_trace(tmp_path, name):
    network = build_network(seed=0)
    method = {"name": name, "state": {"factor": torch.tensor(3.0)}}
    release = read_checkpoint(checkpoint(tmp_path / "a.pth", network, method=method), "student")
    assert release.method is None
    card = write_release(tmp_path, release, input_size=(16, 24))
    assert json.loads(card.read_text())["method"] is None
    assert describe(build(json.loads(card.read_text())["description"])) == describe(network)
