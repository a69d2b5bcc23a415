"""Weights and card: read back bit for bit, and every way in which they do not belong together."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch

from reference.data.classes import NAMES
from reference.networks.card import describe
from reference.networks.release import read_checkpoint, read_release, write_release
from reference.networks.toy import build_network
from tests.reference.small_networks import lively, small_deeplab

IMAGES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def written(folder: Path) -> Path:
    network = small_deeplab(seed=3)
    return write_release(folder, network, input_size=(16, 24), source="gta5")


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
    card = write_release(tmp_path / "new", network, input_size=(16, 24), source="gta5")
    assert sorted(path.name for path in card.parent.iterdir()) == ["card.json", "model.safetensors"]
    network.eval()
    again = read_release(card).network
    assert not again.training
    ours, theirs = network(IMAGES), again(IMAGES)
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.features, theirs.features)


def test_colours_and_corners_come_from_the_weights_not_from_defaults(tmp_path):
    network = small_deeplab(normalisation="imagenet", align_corners=False).eval()
    network.normalise.mean.add_(0.25)
    card = write_release(tmp_path, network, input_size=(16, 24), source="gta5")
    held = json.loads(card.read_text())
    assert held["align_corners"] is False
    assert held["normalisation"]["kind"] == "custom"
    assert held["normalisation"]["mean"] == pytest.approx([0.735, 0.706, 0.656])
    again = read_release(card).network
    assert again.align_corners is False
    assert torch.equal(again(IMAGES).logits, network(IMAGES).logits)


def test_the_card_says_what_a_user_must_know(tmp_path):
    facts = {"scores_percent": {"means": {"miou19": 50.0}}}
    network = small_deeplab()
    card = write_release(tmp_path, network, input_size=(16, 24), source="synthia", facts=facts)
    held = json.loads(card.read_text())
    assert held["classes"] == list(NAMES)
    assert held["palette"][:2] == ["#804080", "#f423e8"]
    assert held["normalisation"] == {
        "kind": "caffe",
        "input": "RGB in [0, 1]",
        "channel_order": "BGR",
        "scale": 255.0,
        "mean": pytest.approx([104.00698793, 116.66876762, 122.67891434]),
        "std": [1.0, 1.0, 1.0],
    }
    assert (held["input_size"], held["stride"], held["align_corners"]) == ([16, 24], 8, True)
    assert held["description"] == describe(network)
    assert (held["source"], held["scores_percent"]) == ("synthia", facts["scores_percent"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"sha256": None},
            'read_release: expected "sha256" of type str in {card}, got NoneType. '
            "Hint: python -m reference.export writes cards.",
        ),
        (
            {"format": 2},
            "read_release: expected a card of format 1, got 2 in {card}. "
            "Hint: it was written by another version.",
        ),
        (
            {"classes": ["cat"]},
            "read_release: expected the 19 classes of Cityscapes in {card}, got 1, "
            "the first ['cat'].",
        ),
        (
            {"input_size": [0, 24]},
            "read_release: expected input_size of a height and a width in {card}, got [0, 24].",
        ),
        (
            {"weights": "../model.safetensors"},
            "read_release: expected weights beside {card}, got the path ../model.safetensors.",
        ),
        (
            {"weights": "other.safetensors"},
            "read_release: expected weights {folder}/other.safetensors, got none.",
        ),
    ],
)
def test_a_card_that_is_not_whole_is_refused(tmp_path, changes, sentence):
    card = edit(written(tmp_path), **changes)
    sentence = sentence.format(card=card, folder=tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_release(card)


def test_no_card_and_no_json_are_refused(tmp_path):
    card = tmp_path / "card.json"
    sentence = f"read_release: expected a card {card}, got none."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_release(card)
    card.write_text("{")
    sentence = (
        f"read_release: expected JSON in {card}, got something else (Expecting property name "
        "enclosed in double quotes: line 1 column 2 (char 1))."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_release(card)
    card.write_text("[1]")
    sentence = (
        f'read_release: expected "format" of type int in {card}, got list. '
        "Hint: python -m reference.export writes cards."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_release(card)


def test_weights_of_another_export_are_refused(tmp_path):
    card, other = written(tmp_path / "a"), written(tmp_path / "b")
    weights = card.parent / "model.safetensors"
    content = bytearray((other.parent / "model.safetensors").read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_release(card)
    sentence = (
        rf"read_release: expected {re.escape(str(weights))} with SHA-256 [0-9a-f]{{12}}\.\.\., "
        r"got [0-9a-f]{12}\.\.\.\. Hint: card and weights are not of one export, "
        r"or one is damaged\."
    )
    assert re.fullmatch(sentence, str(caught.value))


def test_a_pickle_in_place_of_the_weights_does_not_run(tmp_path):
    card, mark = written(tmp_path), tmp_path / "it-ran"
    content = pickle.dumps(_Bomb(mark), protocol=2)
    (tmp_path / "model.safetensors").write_bytes(content)
    edit(card, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError) as caught:
        read_release(card)
    sentence = (
        rf"read_release: expected safetensors in {re.escape(str(tmp_path))}/model\.safetensors, "
        r"got something else \(.+\)\."
    )
    assert re.fullmatch(sentence, str(caught.value))
    assert not mark.exists()


def test_weights_that_do_not_fit_the_description_are_refused(tmp_path):
    card = written(tmp_path)
    held = json.loads(card.read_text())
    held["description"]["options"]["width"] = 16
    card.write_text(json.dumps(held))
    with pytest.raises(ValueError) as caught:
        read_release(card)
    sentence = (
        rf"read_release: expected weights in {re.escape(str(tmp_path))}/model\.safetensors that "
        r"fit the description, got others \(.+\)\."
    )
    assert re.fullmatch(sentence, str(caught.value))


def checkpoint(path: Path) -> Path:
    student, teacher = small_deeplab(seed=1), lively(small_deeplab(seed=2))
    torch.save(
        {
            "description": describe(student),
            "student": student.state_dict(),
            "teacher": teacher.state_dict(),
            "iteration": 40,
        },
        path,
    )
    return path


@pytest.mark.parametrize(("which", "seed"), [("student", 1), ("teacher", 2)])
def test_a_checkpoint_gives_the_network_that_is_asked_for(tmp_path, which, seed):
    release = read_checkpoint(checkpoint(tmp_path / "last.pth"), which)
    expected = small_deeplab(seed=1) if which == "student" else lively(small_deeplab(seed=2))
    assert torch.equal(release.network(IMAGES).logits, expected.eval()(IMAGES).logits)
    assert release.card["iteration"] == 40
    assert release.card["which"] == which


def test_a_checkpoint_without_the_network_is_refused(tmp_path):
    path = tmp_path / "last.pth"
    torch.save({"student": {}, "iteration": 3}, path)
    sentence = (
        f'read_checkpoint: expected entries "description" and "teacher" in {path}, got '
        "iteration, student."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_checkpoint(path, "teacher")


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    path, mark = tmp_path / "last.pth", tmp_path / "it-ran"
    torch.save({"description": _Bomb(mark), "student": {}}, path)
    with pytest.raises(ValueError, match=r"^read_stored: expected tensors and plain values in "):
        read_checkpoint(path, "student")
    assert not mark.exists()
