"""The score command: one table from a card and a Cityscapes folder, and nothing on wrong input."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
import torch

from reference import score
from reference.evaluation.class_table import DELTA, LAST, read_evaluation
from reference.networks.card import describe
from reference.networks.release import read_release, write_release
from reference.score import Options, run_score
from tests.reference.small_networks import small_deeplab
from tests.reference.small_sets import make_cityscapes


@pytest.fixture
def options(tmp_path):
    """Two validation images, road (0) and bicycle (18); the network says road everywhere."""
    network = small_deeplab()
    for branch in network.head.branches:
        branch.weight.data.zero_()
    network.head.branches[0].bias.data[0] = 1.0
    card = write_release(tmp_path / "net", network, input_size=(16, 24), source="synthia")
    root = make_cityscapes(tmp_path / "cityscapes")
    return Options(root, card, tmp_path / "out", device="cpu")


def test_the_table_is_measured_and_written(options):
    table = run_score(options, progress=False)
    # Each of two images holds 6 pixels each of road, nothing, bicycle and nothing.
    assert table.rows[0].iou_percent[0] == 50.0
    assert table.rows[0].iou_percent[18] == 0.0
    assert table.rows[0].means_percent == {"miou16": 25.0, "miou13": 25.0, "pixel accuracy": 50.0}
    assert table.header == (
        "IoU in percent, source synthia; network: DeepLab, backbone resnet14, head dlv2 of "
        "4 branches, 76 features (branches), colours caffe",
        "2 images at 24x16; single scale; no flip; logits upsampled to full-size labels "
        "(align_corners=True); outputs without labels in the source masked: terrain, truck, train",
    )
    assert sorted(path.name for path in options.out.iterdir()) == [
        "classes.csv",
        "classes.json",
        "classes.md",
    ]
    assert read_evaluation(options.out / "classes.json").scores.confusion.sum() == 24


def test_the_evaluation_before_and_the_flags_reach_the_table(options, tmp_path):
    flags = replace(options, scales=(1.0, 1.5), flip=True, references=False)
    first = run_score(flags, progress=False)
    assert "scales 1, 1.5; with flip" in first.header[1]
    again = replace(flags, out=tmp_path / "again", previous=options.out / "classes.json")
    table = run_score(again, progress=False)
    assert [row.name for row in table.rows] == [LAST, "previous evaluation", DELTA]
    assert table.rows[2].means_percent["miou16"] == 0.0
    other = replace(again, flip=False, out=tmp_path / "other")
    sentence = (
        "score: expected an evaluation before measured as this one, "
        f"{first.header[1].replace('with flip', 'no flip')!r}, got {first.header[1]!r}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run_score(other, progress=False)
    assert not other.out.exists()


def test_a_checkpoint_of_a_run_names_its_source_and_size(options, tmp_path):
    network = read_release(options.weights).network
    held = {"description": describe(network), "student": network.state_dict()}
    settings = {"data": {"source_set": "synthia"}, "reporting": {"size": [16, 32]}}
    torch.save({**held, "settings": settings}, tmp_path / "last.pth")
    table = run_score(replace(options, weights=tmp_path / "last.pth"), progress=False)
    assert table.header[0].startswith("IoU in percent, source synthia; student: DeepLab")
    assert table.header[1].startswith("2 images at 32x16; single scale")
    other = replace(options, weights=tmp_path / "last.pth", source="gta5", size=(16, 24))
    table = run_score(replace(other, out=tmp_path / "other"), progress=False)
    assert table.header[0].startswith("IoU in percent, source gta5;")
    assert table.header[1].startswith("2 images at 24x16; single scale")


def test_a_source_that_nothing_names_is_asked_for(options, tmp_path):
    network = read_release(options.weights).network
    path = tmp_path / "last.pth"
    torch.save({"description": describe(network), "student": network.state_dict()}, path)
    sentence = (
        "score: expected the data set that the network was trained on, got no source and none in "
        f"{path}. Hint: give --source gta5, synthia or toy; it says which classes the network "
        "knows."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run_score(replace(options, weights=path))
    assert not options.out.exists()
    assert (
        "miou19" in run_score(replace(options, weights=path, source="gta5")).rows[0].means_percent
    )


def test_a_folder_that_holds_something_is_left_alone(options):
    options.out.mkdir()
    (options.out / "notes.txt").write_text("mine")
    sentence = (
        f"score: expected out to be a new or empty folder, got {options.out}, which holds "
        "notes.txt. Hint: choose another one with --out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run_score(options)
    assert [path.name for path in options.out.iterdir()] == ["notes.txt"]


def test_a_gpu_that_is_not_there_is_refused(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sentence = 'score: expected a GPU for device "cuda", got none.'
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run_score(replace(options, device="cuda"))


def test_the_command_prints_the_table_and_ends_with_one_sentence(options, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    words = [str(options.root), "--weights", str(options.weights), "--out", str(options.out)]
    monkeypatch.setattr(sys, "argv", ["score", *words])
    score.main()
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == json.loads((options.out / "classes.json").read_text())["header"]
    assert printed[-1] == f"Wrote classes.md, classes.csv and classes.json to {options.out}"
    monkeypatch.setattr(sys, "argv", ["score", *words, "--out", str(options.root / "x"),
                                      "--split", "none"])  # fmt: skip
    with pytest.raises(
        SystemExit, match=r"^Cityscapes: expected .*/none to be a folder, got none\."
    ):
        score.main()
