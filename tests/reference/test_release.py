"""Weights and card: read back bit for bit, and every way in which they do not belong together."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch

from reference.data.classes import CITYSCAPES, ClassList
from reference.networks.output import Output, Segmenter, build, describe
from reference.networks.release import (
    read_checkpoint,
    read_release,
    read_trained,
    write_release,
)
from tests.reference.small_networks import (
    IMAGES,
    NETWORKS,
    Bomb,
    build_network,
    lively,
    refuses,
    small_deeplab,
    write_checkpoint,
)

OWN = ClassList("own", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), {"miou2": (0, 1), "sky": (1,)})


def exported(folder: Path, network: Segmenter | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = write_checkpoint(folder / "last.pth", network or small_deeplab(seed=3))
    return write_release(folder, read_checkpoint(path, "student"), input_size=(16, 24))


def edit(card: Path, **changes) -> Path:
    held = json.loads(card.read_text())
    card.write_text(json.dumps({k: v for k, v in (held | changes).items() if v is not None}))
    return card


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_bit_for_bit(tmp_path, name):
    network = NETWORKS[name]()
    network(IMAGES)  # moves the running statistics
    again = read_trained(exported(tmp_path / "new", network), "student").network
    assert describe(again) == describe(network) and not again.training
    ours, theirs = network.eval()(IMAGES), again(IMAGES)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.features, theirs.features)


def test_the_card_says_what_a_user_must_know(tmp_path):
    network = small_deeplab(num_classes=2, align_corners=False).eval()
    network.normalise.mean.add_(0.25)
    path = write_checkpoint(
        tmp_path / "last.pth", network, OWN, {"source_set": "own"}, labelled=[1]
    )
    release = read_checkpoint(path, "student")
    facts = {"scores_percent": {"means": {"sky": 50.0}}}
    card = write_release(tmp_path, release, input_size=(16, 24), facts=facts)
    held = json.loads(card.read_text())
    expected = {
        **{"classes": ["road", "sky"], "palette": ["#010203", "#040506"], "labelled": [1]},
        **{"means": {"miou2": [0, 1], "sky": [1]}, "input_size": [16, 24], "stride": 8},
        **{"align_corners": False, "source": "own", **facts},
    }
    assert {name: held[name] for name in expected} == expected
    colours = held["normalisation"]
    assert (colours["kind"], colours["channel_order"]) == ("custom", "BGR")
    again = read_release(card)
    assert torch.equal(again.network(IMAGES).logits, network(IMAGES).logits)
    assert (again.classes, again.labelled) == (OWN, (1,))


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"sha256": None}, '"sha256" of type str in {card}, got NoneType. Hint: python'),
    ({"format": 2}, "format 1 in {card}, got 2, of another version."),
    ({"palette": ["red"] * 19}, "classes with a palette and means in {card}, got ValueError."),
    (
        {"input_size": [0, 24]},
        "input_size of a height and a width, or a short side and 0 in {card}, got [0, 24].",
    ),
    ({"weights": "../model.safetensors"}, "the name of weights beside it, such as model.safeten"),
    ({"weights": "other.safetensors"}, "the name of weights beside it, such as model.safeten"),
])  # fmt: skip
def test_a_card_that_is_not_whole_is_refused(tmp_path, changes, sentence):
    card = edit(exported(tmp_path), **changes)
    with refuses(f"read_release: expected {sentence.format(card=card)}"):
        read_release(card)


@pytest.mark.parametrize(
    ("content", "got"), [(None, "a card in"), ("{", "a card in"), ("[1]", '"format" of type int')]
)
def test_no_card_and_no_json_are_refused(tmp_path, content, got):
    card = tmp_path / "card.json"
    if content is not None:
        card.write_text(content)
    with refuses(f"read_release: expected {got} "):
        read_release(card)


def test_card_and_weights_that_do_not_belong_together_are_refused(tmp_path):
    card = edit(exported(tmp_path), classes=["cat"], palette=["#000000"], means=None)
    with pytest.raises(ValueError, match=r"one class per output in .*, got 1 classes and 19 outp"):
        read_release(card)
    card = exported(tmp_path)
    description = json.loads(card.read_text())["description"]
    description["options"]["width"] = 16
    edit(card, description=description)
    with pytest.raises(ValueError, match=r"that fit the description, got others \(.+\)") as caught:
        read_release(card)
    assert len(str(caught.value)) < 400
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"with SHA-256 \w{12}\.\.\., got \w{12}\.\.\.\. Hint: c"):
        read_release(card)


def test_a_pickle_in_place_of_the_weights_does_not_run(tmp_path):
    card, mark = exported(tmp_path), tmp_path / "it-ran"
    content = pickle.dumps(Bomb(mark), protocol=2)
    (tmp_path / "model.safetensors").write_bytes(content)
    edit(card, sha256=hashlib.sha256(content).hexdigest())
    with refuses("read_release: expected safetensors in "):
        read_release(card)
    torch.save({"description": Bomb(mark), "student": {}}, tmp_path / "bomb.pth")
    with refuses("read_stored: expected tensors and plain values in "):
        read_checkpoint(tmp_path / "bomb.pth", "student")
    assert not mark.exists()


@pytest.mark.parametrize(("which", "seed"), [("student", 1), ("teacher", 2)])
def test_a_checkpoint_gives_the_network_that_is_asked_for(tmp_path, which, seed):
    student, teacher = (lively(small_deeplab(), seed) for seed in (1, 2))
    path = write_checkpoint(tmp_path / "a.pth", student, teacher=teacher.state_dict())
    release = read_checkpoint(path, which)
    expected = lively(small_deeplab(), seed).eval()
    assert torch.equal(release.network(IMAGES).logits, expected(IMAGES).logits)
    assert (release.card["iteration"], release.card["which"]) == (40, which)


WEIGHTS = small_deeplab().state_dict()


@pytest.mark.parametrize(("held", "got"), [
    (WEIGHTS, "got weights alone (115 entries, the first _extra_state). Hint"),
    ({"state_dict": WEIGHTS}, "got weights alone (1 entries, the first state_dict). Hint"),
    ([1], "got list."), ({"iteration": 3}, "got iteration."),
    ({"description": {}, "student": {}}, "a run without a moving average. Hint: use --which"),
])  # fmt: skip
def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path, held, got):
    path = tmp_path / "last.pth"
    torch.save(held, path)
    with refuses('read_checkpoint: expected a checkpoint with "description" and "tea') as caught:
        read_checkpoint(path, "teacher")
    assert got in str(caught.value)
    assert len(str(caught.value)) < 400


def test_weights_with_nan_are_refused(tmp_path):
    network = small_deeplab()
    network.head.branches[0].bias.data[0] = torch.nan
    path = write_checkpoint(tmp_path / "last.pth", network)
    with pytest.raises(ValueError, match=r"got NaN or infinity in head\.branches\.0\.bias\. Hint"):
        read_checkpoint(path, "student")


def test_a_synthia_source_knows_16_classes(tmp_path):
    path = write_checkpoint(tmp_path / "last.pth", small_deeplab(), data={"source_set": "synthia"})
    release = read_checkpoint(path, "student")
    assert release.labelled == CITYSCAPES.means["miou16"]
    assert (release.card["source"], release.card["input_size"]) == ("synthia", [16, 24])


class Louder(Segmenter):
    """What a method makes of a network at test time: logits times a number of its state."""

    def __init__(self, network: Segmenter, factor: torch.Tensor) -> None:
        super().__init__(feature_dim=64, num_classes=19, stride=4, align_corners=False)
        self.network, self.factor = network, factor

    def forward(self, images, domain="target"):
        logits, features = self.network(images, domain)
        return Output(logits * self.factor, features)


@pytest.fixture
def checkpoint_of(monkeypatch, tmp_path):
    """Checkpoints of methods; that of "louder" changes the network at test time."""

    def at_test(name, state, network):
        return Louder(network, state["factor"]) if name == "louder" else network

    monkeypatch.setattr("reference.methods.at_test", at_test)
    state = {"factor": torch.tensor(3.0)}
    return lambda name, **more: write_checkpoint(
        tmp_path / "last.pth", build_network(seed=0), method={"name": name, "state": state | more}
    )


def test_a_method_that_changes_the_network_travels_with_it(tmp_path, checkpoint_of):
    path = checkpoint_of("louder")
    release = read_checkpoint(path, "student")
    expected = build_network(seed=0).eval()(IMAGES).logits
    plain = read_checkpoint(path, "student", plain=True)
    assert torch.equal(release.network(IMAGES).logits, 3 * expected)
    assert torch.equal(plain.network(IMAGES).logits, expected)
    card = write_release(tmp_path, release, input_size=(16, 24))
    assert torch.equal(read_release(card).network(IMAGES).logits, 3 * expected)
    release = read_checkpoint(checkpoint_of("louder", optimiser={"lr": 1}), "student")
    with refuses("export: expected a method whose state is tensors alone, got method.optimiser of"):
        write_release(tmp_path / "b", release, input_size=(16, 24))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["bicl", "quiet"])
def test_a_method_that_leaves_the_network_leaves_no_trace(tmp_path, checkpoint_of, name):
    release = read_checkpoint(checkpoint_of(name), "student")
    assert release.method is None
    card = json.loads(write_release(tmp_path, release, input_size=(16, 24)).read_text())
    assert card["method"] is None
    assert describe(build(card["description"])) == describe(release.trained)
