"""A dry run: what it tells, what it refuses, and that it leaves nothing behind."""

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from reference.data.settings import Crops
from reference.presets import Options
from reference.run.plan import plan
from reference.settings import Contrast, Settings
from reference.train import main, train
from tests.reference.tiny_runs import EVERYTHING, SEEN, changed

REFUSED: dict[str, tuple[Settings, str]] = {
    "no weights": (changed(network={"random_weights": False}), "train: expected "),
    "parts that do not divide": (changed(machine={"accumulate": 4}), "train: expected a batch_si"),
    "fp16 on the CPU": (
        changed(machine={"precision": "fp16"}), "train: expected a GPU for precision fp16, got "
    ),
    "no GPU": (changed(machine={"device": "cuda"}), "train: expected a GPU for every pro"),
    "no data": (
        changed(data={"source_set": "gta5"}), "data: expected a folder gta5 below data.root, got no"
    ),
    "no such root": (
        changed(data={"target_set": "camvid", "root": Path("nowhere")}),
        "data: expected a folder camvid below data.root, got nowhere, which does not exist. Hint",
    ),
    "no such weights": (
        changed(network={"weights": Path("no.pth")}, data={"source_set": "gta5"}),
        "train: expected weights in no.pth, got no such file. Hint: docs/data.md says where to ge",
    ),
    "weights that nothing reads": (
        changed(network={"kind": "toy", "weights": Path("no.pth")}),
        "train: expected network.weights left out with kind toy, got no.pth.",
    ),
    "unknown method": (replace(EVERYTHING, method="bicycle"), "methods: expected "),
    "no such image": (
        changed(reporting={"panels_every": 5, "panel_ids": (99,)}),
        "train: expected reporting.panel_ids below 4, the number of source images, got 99.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_dry_run_refuses_what_the_run_refuses_and_nothing_is_written(name, tmp_path, monkeypatch):
    if name == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    settings, start = REFUSED[name]
    if name != "no such image":
        monkeypatch.setattr("reference.data.sets.draw_missing", Mock(side_effect=AssertionError))
    folder, said = tmp_path / "deep" / "run", []
    for dry_run in (True, False):
        with pytest.raises(SystemExit) as stop:
            main(Options(folder=folder, dry_run=dry_run, settings=settings))
        said.append(str(stop.value.code))
    assert said[0] == said[1]
    assert said[0].startswith(start)
    assert not folder.exists()


@pytest.mark.parametrize(("method", "stage", "sentence"), [
    (
        "pipa", {"target_crops": Crops(crop=(16, 32))},
        r"^train: expected adaptation.target_crops.crop \(24, 48\) as of the source with method "
        r"pipa, got \(16, 32\)\. Hint: give one size, since it mixes images\.$",
    ),
    (
        "bicl", {"contrast": Contrast(pairwise=True)},
        r'^BiCL: expected pairwise to be False with prototypes="bank", got True\. Hint: a bank bel',
    ),
])  # fmt: skip
def test_what_the_method_refuses_is_refused_before_the_warm_up(method, stage, sentence, tmp_path):
    settings = changed(replace(EVERYTHING, method=method), adaptation=stage)
    for start in (plan, train):
        with pytest.raises(ValueError, match=sentence):
            start(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_names_every_phase_and_writes_and_draws_nothing(tmp_path, capsys):
    settings = changed(EVERYTHING, data={"root": tmp_path / "scenes"})
    settings = replace(settings, method="bi_mix")
    main(Options(folder=tmp_path / "run", resume="auto", dry_run=True, settings=settings))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[-3:]] == ["source", "round 0", "round 1"]
    assert f"labelled images: 4 in {tmp_path / 'scenes'}" in lines
    assert f"drawn scenes in {tmp_path / 'scenes'}, drawn by the run" in lines
    told = "images are scaled (width x height): labelled 64x32 to 64x32; target 64x32 to 64x32"
    assert told in lines
    assert any("has no day images: each image is its own day" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_the_folder_that_the_run_refuses(seen_run: Path):
    with pytest.raises(ValueError, match=r"^train: expected folder to be a new or empty folder"):
        plan(SEEN, seen_run)
    with pytest.raises(ValueError, match=r"got 1 other: seed: 0 -> 5"):
        plan(replace(SEEN, seed=5), seen_run, resume=True)
    assert plan(SEEN, seen_run, resume=True).splitlines()[-1] == "nothing is left to train"


def test_a_dry_run_plans_from_the_checkpoint_that_the_run_goes_on_from(seen_run, tmp_path):
    folder = shutil.copytree(seen_run, tmp_path / "run")
    listed = sorted((folder / "checkpoints").iterdir())
    listed[-1].unlink()
    lines = plan(SEEN, folder, resume=True).splitlines()
    assert "going on from iteration 8" in lines[-2]
    assert lines[-1].startswith("round 1: iterations 8..8, learning rate ")
    assert sorted((folder / "checkpoints").iterdir()) == listed[:-1]
