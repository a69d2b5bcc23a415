"""The export command: what it writes, where the scores come from, what it refuses."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reference import export
from reference.data.classes import NUM_CLASSES
from reference.evaluation.class_table import class_table, write_class_table
from reference.evaluation.evaluate import Scores
from reference.evaluation.protocol import Evaluation, Protocol
from reference.export import Options, run_export
from reference.networks.card import describe
from reference.networks.release import read_release
from tests.reference.small_networks import small_deeplab


@pytest.fixture
def options(tmp_path):
    network = small_deeplab(seed=1)
    path = tmp_path / "last.pth"
    torch.save(
        {"description": describe(network), "student": network.state_dict(), "iteration": 7}, path
    )
    return Options(path, tmp_path / "out", source="gta5", size=(16, 24), program=False)


def scores(folder: Path) -> Path:
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = 60, 40, 100
    evaluation = Evaluation(Scores(confusion), Protocol(), 2, True)
    write_class_table(folder, class_table(evaluation, network="DeepLab dlv2"))
    return folder / "classes.json"


def test_the_three_files(options):
    card = run_export(replace(options, program=True))
    assert sorted(path.name for path in options.out.iterdir()) == [
        "card.json",
        "model.pt2",
        "model.safetensors",
    ]
    images = torch.rand(2, 3, 16, 24)
    logits = read_release(card).network(images).logits
    assert torch.equal(logits, small_deeplab(seed=1).eval()(images).logits)
    assert torch.equal(torch.export.load(options.out / "model.pt2").module()(images)[0], logits)


def test_the_card_carries_the_headline_of_an_evaluation(options, tmp_path):
    held = json.loads(run_export(replace(options, scores=scores(tmp_path))).read_text())
    assert held["scores_percent"]["means"]["miou19"] == pytest.approx((60 + 100 / 1.4) / 2)
    assert held["scores_percent"]["header"][0] == "IoU in percent, source gta5; DeepLab dlv2"
    assert (held["which"], held["iteration"]) == ("student", 7)


def test_source_and_size_are_those_of_the_run(options):
    held = torch.load(options.checkpoint, weights_only=True)
    settings = {"data": {"source_set": "synthia"}, "reporting": {"size": [24, 40]}}
    torch.save({**held, "settings": settings}, options.checkpoint)
    card = json.loads(run_export(replace(options, source=None, size=None)).read_text())
    assert (card["source"], card["input_size"]) == ("synthia", [24, 40])
    other = replace(options, out=options.out / "other")
    card = json.loads(run_export(other).read_text())
    assert (card["source"], card["input_size"]) == ("gta5", [16, 24])


def test_a_source_that_nothing_names_is_asked_for(options):
    sentence = (
        "export: expected the data set that the network was trained on, got no source and none in "
        f"{options.checkpoint}. Hint: give --source gta5, synthia or toy; it says which classes "
        "the network knows."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run_export(replace(options, source=None))
    assert not options.out.exists()


def test_without_an_evaluation_the_card_has_no_scores(options):
    assert json.loads(run_export(options).read_text())["scores_percent"] is None


def test_a_folder_that_holds_something_is_left_alone(options):
    options.out.mkdir()
    (options.out / "notes.txt").write_text("mine")
    sentence = (
        f"export: expected out to be a new or empty folder, got {options.out}, which holds "
        "notes.txt. Hint: choose another one with --out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run_export(options)
    assert [path.name for path in options.out.iterdir()] == ["notes.txt"]


def test_wrong_inputs_write_nothing(options, tmp_path):
    wrong = tmp_path / "wrong.json"
    sentence = (
        f"export: expected scores of an evaluation in {wrong}, got none there "
        "({}). Hint: use the JSON file beside the table per class."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence.format('FileNotFoundError'))}$"):
        run_export(replace(options, scores=wrong))
    wrong.write_text('{"rows": []}')
    with pytest.raises(ValueError, match=f"^{re.escape(sentence.format('StopIteration'))}$"):
        run_export(replace(options, scores=wrong))
    with pytest.raises(ValueError, match=r"^export: expected a positive size, got \(0, 24\)\.$"):
        run_export(replace(options, size=(0, 24)))
    with pytest.raises(ValueError, match=r"^read_checkpoint: expected entries "):
        run_export(replace(options, which="teacher"))
    assert not options.out.exists()


def test_the_command_prints_what_it_wrote(options, monkeypatch, capsys):
    words = [str(options.checkpoint), "--out", str(options.out), "--size", "16", "24"]
    words += ["--source", "gta5"]
    monkeypatch.setattr(sys, "argv", ["export", *words, "--no-program"])
    export.main()
    assert capsys.readouterr().out.splitlines() == [
        f"Wrote card.json, model.safetensors to {options.out}",
        f"Try: python -m reference.predict FOLDER --weights {options.out / 'card.json'} "
        "--out predictions",
    ]
    with pytest.raises(SystemExit, match=r"^export: expected out to be a new or empty folder"):
        export.main()
