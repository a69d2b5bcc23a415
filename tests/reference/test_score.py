"""The score command: one table from a network and labelled images, and nothing on wrong input."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
from reference import score
from reference.commands import read
from reference.data.classes import CITYSCAPES, ClassList
from reference.evaluation.class_table import DELTA, LAST, read_evaluation, write_class_table
from reference.score import Options, run_score
from tests.reference.killed import assert_starts_again
from tests.reference.small_networks import liking, refuses, write_checkpoint
from tests.reference.trees import save_image, save_values

OWN = ClassList("mine", ("road", "sky"), ((1, 1, 1), (2, 2, 2)), {"miou2": (0, 1)}, ((4,), (9,)))


def cityscapes(root: Path, *ids: int) -> Path:
    """Two validation images whose labels have four stripes of 6 pixels, in Cityscapes ids."""
    labels = np.repeat(np.array(ids, dtype=np.uint8), 6).reshape(-1, 6)
    for number in range(2):
        stem = f"ulm/ulm_{number:06}_000019"
        save_image(root / f"leftImg8bit/val/{stem}_leftImg8bit.png", size=labels.shape)
        save_values(root / f"gtFine/val/{stem}_gtFine_labelIds.png", labels)
    return root


@pytest.fixture
def options(tmp_path):
    """Road (id 7), nothing (0), bicycle (33), nothing; a network that says road everywhere."""
    root = cityscapes(tmp_path / "cityscapes", 7, 0, 33, 0)
    data = {"source_set": "synthia", "target_set": "cityscapes", "target": str(root)}
    data |= {"val_split": "val", "drawn": {"size": [96, 192]}, "merge": [], "workers": 4}
    weights = write_checkpoint(tmp_path / "last.pth", liking(0), CITYSCAPES, data)
    return Options(root=root, weights=weights, out=tmp_path / "out", device="cpu", threads=1)


def test_the_table_is_measured(options):
    table = run_score(options)
    assert table.rows[0].iou_percent[0] == 50.0
    assert table.rows[0].iou_percent[18] == 0.0
    assert table.rows[0].means_percent["miou16"] == 25.0
    assert table.header == (
        "IoU in percent, source synthia, target Cityscapes; student: DeepLab, backbone resnet14, "
        "head dlv2 of 4 branches, 76 features (branches), colours caffe",
        "2 images at 24x16; single scale; no flip; logits upsampled to full-size labels "
        "(align_corners=True); outputs without labels in the source masked: terrain, truck, train",
        "miou16 is here over the 2 of 16 classes that occur",
    )
    # Two images are no table that published rows may stand in.
    assert [row.name for row in table.rows] == [LAST]
    # Without a folder, the images of the run.
    again = run_score(replace(options, root=None, out=options.out / "b"))
    assert again.rows == table.rows


@pytest.fixture
def command(options, monkeypatch):
    def call(out: Path, *flags: str) -> None:
        words = [str(options.root), "--weights", str(options.weights), "--out", str(out)]
        monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
        monkeypatch.setattr(sys, "argv", ["score", *words, *flags])
        score.main(read(Options, "score"))

    return call


def test_the_evaluation_before_and_the_flags_reach_the_table(options, tmp_path, command):
    flags = replace(options, scales=(1.0, 1.5), flip=True, references=False, window=(8, 16))
    words = ["--scales", "1", "1.5", "--flip", "--no-references", "--window", "8", "16"]
    command(options.out, *words)
    again = replace(flags, out=tmp_path / "again", previous=options.out / "classes.json")
    table = run_score(again)
    assert "scales 1, 1.5; with flip; windows of 16x8 every 10x5" in table.header[1]
    assert [row.name for row in table.rows] == [LAST, "previous evaluation", DELTA]
    assert table.rows[2].means_percent["miou16"] == 0.0
    with refuses("score: expected an evaluation before measured as this one, "):
        run_score(replace(again, flip=False, out=tmp_path / "other"))


def test_your_own_images_labels_and_classes(tmp_path):
    listed = [{"name": n, "colour": [0, 0, 0], "ids": [i]} for n, i in (("road", 4), ("sky", 9))]
    (tmp_path / "classes.json").write_text(json.dumps(listed))
    save_image(tmp_path / "images" / "a.png", size=(8, 8))
    save_values(tmp_path / "masks" / "a.png", np.repeat(np.uint8([4, 9]), 32).reshape(8, 8))
    data = {"source_set": "own", "target_set": "own"}
    weights = write_checkpoint(tmp_path / "a.pth", liking(0, count=2), OWN, data, labelled=[0, 1])
    options = Options(
        root=tmp_path / "images", labels=tmp_path / "masks", classes=tmp_path / "classes.json",
        weights=weights, out=tmp_path / "out", device="cpu", threads=1,
    )  # fmt: skip
    table = run_score(options)
    assert table.rows[0].means_percent == {"miou2": 25.0, "pixel accuracy": 50.0}
    assert list(table.classes) == ["road", "sky"]
    city = cityscapes(tmp_path / "cityscapes", 7, 7, 7, 23)
    with refuses(
        f"score: expected {city} to lie as layout own, got one that lies as cityscapes. "
        "Hint: give --set cityscapes."
    ):
        run_score(replace(options, root=city, out=tmp_path / "c"))
    table = run_score(replace(options, root=city, set="cityscapes", out=tmp_path / "d"))
    assert table.rows[0].iou_percent == {0: 75.0, 1: 0.0}
    # The list travels with the network, whatever became of the file.
    data |= {"classes": "from/another/folder.json"}
    weights = write_checkpoint(tmp_path / "b.pth", liking(0, count=2), OWN, data, labelled=[0, 1])
    moved = replace(options, classes=None, weights=weights, out=tmp_path / "e")
    assert run_score(moved).rows[0].iou_percent == {0: 50.0, 1: 0.0}
    (tmp_path / "classes.json").write_text(json.dumps(listed[::-1]))
    with refuses("score: expected the classes of the network (road, sky), got sky, road. Hint: "):
        run_score(replace(options, out=tmp_path / "b"))


def test_the_table_is_printed_even_where_it_cannot_be_written(
    options, command, monkeypatch, capsys
):
    command(options.out)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == json.loads((options.out / "classes.json").read_text())["header"]
    with pytest.raises(SystemExit, match=r"^score: expected no --source, got one\. Hint: leave it"):
        command(options.out, "--source", "gta5")
    assert printed[-1] == f"Wrote classes.md, classes.csv and classes.json to {options.out}"
    assert read_evaluation(options.out / "classes.json").scores.confusion.sum() == 24

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reference.run.files.os.replace", full)
    with pytest.raises(SystemExit, match=r"No space left on device"):
        command(options.root / "x")
    assert capsys.readouterr().out.splitlines()[:2] == printed[:2]


def test_a_command_without_the_extra_names_it(tmp_path):
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'tyro' else find(name, *a)\n"
    )
    root = Path(reference.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "reference.score", "--help"],
        capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "reference: expected the packages of the recipe, got no tyro. "
        "Hint: pip install 'protocontrast[reference]'."
    )


def test_score_that_was_killed_starts_again(options, tmp_path):
    assert_starts_again(
        tmp_path, lambda out: write_class_table(out, run_score(replace(options, out=out))), least=6
    )
