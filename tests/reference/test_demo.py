"""The demo: what it writes, what it refuses, what is left when it is stopped."""

from __future__ import annotations

import io
import json
import shutil
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from reference import demo
from reference.demo import Options, prepare, run_demo, summarise, table, train_rows
from reference.experiments.rows import CAPTIONS, adaptation_of
from reference.experiments.scenario import choose_experiment, data_folder, load_scenario
from reference.training.config import PRESETS, Experiment
from reference.training.losses import NonFiniteLossError

ROW_NAMES = ["source_only", "source_only_continued", "entropy_only", "bicl", "oracle"]


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_experiment, tiny_scenario):
    options = Options(run=tmp_path_factory.mktemp("runs") / "demo")
    return options, run_demo(options, tiny_experiment, tiny_scenario, progress=False)


def test_results_hold_what_was_promised(finished):
    options, returned = finished
    results = json.loads((options.run / "results.json").read_text())
    assert results == json.loads(json.dumps(returned))
    assert list(results)[:2] == ["seed", "num_classes"]
    assert results["seed"] == 0
    assert results["num_classes"] == len(results["class_names"]) == len(results["train_ids"])
    for name in ROW_NAMES:
        assert len(results[name]["iou"]) == results["num_classes"]
        assert all(0 <= value <= 100 for value in results[name]["iou"])
        assert results[name]["miou"] == pytest.approx(statistics.mean(results[name]["iou"]))
    assert {*ROW_NAMES, "drawing", "reading", "evaluation"} < {*results["seconds"]}
    parts = sum(results["seconds"][name] for name in (*ROW_NAMES, "evaluation"))
    assert results["seconds"]["training_and_evaluation"] == pytest.approx(parts)
    assert 50 < results["peak_mib"] < 8192


def test_three_whole_files_are_left_and_no_other(finished):
    options, results = finished
    assert sorted(tree(options.run)) == ["history.json", "report.html", "results.json"]
    history = json.loads((options.run / "history.json").read_text())
    assert list(history) == list(CAPTIONS)
    assert len(history["bicl"]["losses"]["target_to_source"]) == 4
    report = (options.run / "report.html").read_text(encoding="utf-8")
    assert report.count('src="data:image/png;base64,') == 2 * 4 + 4 * 4 + 4 * 5
    assert "<h2>Prototypes</h2>" in report
    assert f"{results['bicl']['miou']:.1f}" in report


def test_the_same_seed_gives_the_same_numbers(finished, tiny_experiment, tiny_scenario):
    rows = train_rows(tiny_experiment, tiny_scenario, progress=False)
    again = summarise(Options(), tiny_experiment, tiny_scenario, rows)
    for name in ROW_NAMES:
        assert again[name] == finished[1][name]


def test_the_table_shows_every_class_the_mean_and_the_gain(finished):
    results = finished[1]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(results))
    lines = console.export_text().splitlines()
    mean = next(line for line in lines if "mIoU" in line)
    assert [cell.strip() for cell in mean.strip("│ ").split("│")[1:]] == [
        f"{results[name]['miou']:.1f}" for name in ROW_NAMES
    ]
    for label in results["class_names"]:
        assert any(line.startswith(f"│ {label} ") for line in lines)
    gain = results["bicl"]["miou"] - results["source_only_continued"]["miou"]
    over = next(line for line in lines if "over continued" in line).split("│")
    assert over[5].strip() == f"{gain:+.1f}"
    assert over[3].strip() == ""


@pytest.mark.parametrize(
    ("names", "found"),
    [(["notes.txt"], "notes.txt"), (["a", "b", "c"], "a and 2 more")],
)
def test_a_folder_in_use_is_refused_before_anything_is_done(
    tmp_path, monkeypatch, capsys, names, found
):
    run = tmp_path / "demo"
    run.mkdir()
    for name in names:
        (run / name).write_text("mine")
    before = tree(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo", "--run", str(run)])
    with pytest.raises(SystemExit) as caught:
        demo.main()
    assert str(caught.value) == (
        f"demo: expected run to be a new or empty folder, got {run}, which holds {found}. "
        f"Hint: choose another one with --run, such as {run}-2, or remove it first."
    )
    assert tree(tmp_path) == before
    assert capsys.readouterr().out == ""


def test_a_file_in_the_place_of_the_run_is_refused(tmp_path, tiny_experiment):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(ValueError, match=r"got .*demo, which is a file\. Hint: "):
        prepare(Options(run=tmp_path / "demo"), tiny_experiment, progress=False)
    assert tree(tmp_path) == {"demo": b"mine"}


def test_no_thread_is_refused(tmp_path, tiny_experiment):
    with pytest.raises(ValueError, match=r"^demo: expected threads of at least 1, got 0\.$"):
        prepare(Options(run=tmp_path / "demo", threads=0), tiny_experiment, progress=False)


def test_a_wrong_target_is_refused_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["demo", "--run", str(tmp_path / "demo"), "--target", str(tmp_path / "none")]
    )
    with pytest.raises(
        SystemExit, match=r"^Cityscapes: expected .*none/leftImg8bit/train to be a folder"
    ):
        demo.main()
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), demo.INTERRUPTED),
        (NonFiniteLossError("bicl: expected a finite loss, got entropy = nan at step 3."), None),
    ],
)
def test_a_run_that_ends_early_leaves_no_results(
    tmp_path, monkeypatch, capsys, tiny_experiment, tiny_data, error, code
):
    def stop(*arguments, **settings):
        raise error

    run = tmp_path / "demo"
    monkeypatch.setattr(demo, "choose_experiment", lambda target, seed: tiny_experiment)
    monkeypatch.setattr(demo, "oracle_row", stop)
    arguments = ["demo", "--run", str(run), "--data", str(tiny_data), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        demo.main()
    assert caught.value.code == (code or str(error))
    assert tree(tmp_path) == {}
    if code:
        assert f"Stopped; nothing was written to {run}." in capsys.readouterr().err


def test_the_command_prints_the_table_and_where_the_report_is(
    tmp_path, monkeypatch, capsys, tiny_experiment, tiny_data
):
    run = tmp_path / "demo"
    monkeypatch.setattr(demo, "choose_experiment", lambda target, seed: tiny_experiment)
    arguments = ["demo", "--run", str(run), "--data", str(tiny_data), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    demo.main()
    printed = capsys.readouterr().out
    assert "mIoU" in printed and "over continued" in printed
    assert "Open " in printed
    assert (run / "results.json").is_file()


def test_drawn_images_are_reused_and_other_settings_refused(tmp_path, tiny_experiment):
    options = Options(run=tmp_path / "demo")
    small = replace(tiny_experiment.data, sizes=replace(tiny_experiment.data.sizes, source_train=2))
    experiment = replace(tiny_experiment, data=small)
    prepare(options, experiment, progress=False)
    folder = data_folder(tmp_path, experiment)
    image = next(folder.rglob("*_leftImg8bit.png"))
    stamp = image.stat().st_mtime_ns
    prepare(options, experiment, progress=False)
    assert image.stat().st_mtime_ns == stamp
    before = tree(tmp_path)
    other = replace(experiment, data=replace(small, shift=0.125))
    with pytest.raises(ValueError, match=rf"drawn with shift 0\.125, got {small.shift}\. Hint"):
        prepare(options, other, progress=False)
    assert tree(tmp_path) == before


def test_photographs_without_training_labels_have_no_oracle(
    tmp_path, tiny_experiment, tiny_data, tiny_scenario
):
    """A Cityscapes-like folder with labels for its split val alone, as adaptation expects."""
    root = tmp_path / "town"
    shutil.copytree(tiny_data / "cityscapes", root)
    shutil.rmtree(root / "gtFine" / "train")
    shutil.rmtree(root / "gtFine" / "test")
    options = Options(run=tmp_path / "runs" / "photographs", target=str(root))
    _, scenario = prepare(options, tiny_experiment, progress=False)
    assert scenario.split == "val"
    assert scenario.target_truth is None
    assert len(scenario.test) == 2
    assert (scenario.target_images == tiny_scenario.target_images).all()
    results = run_demo(options, tiny_experiment, scenario, progress=False)
    assert "oracle" not in results
    assert results["target"] == "town"
    assert "Pseudo labels that are right" not in (options.run / "report.html").read_text()


def test_presets_follow_the_target():
    assert choose_experiment("toy", 3) == replace(PRESETS["toy"], seed=3)
    assert choose_experiment("/data/town", 0) == PRESETS["toy-to-photographs"]


def test_every_row_trains_on_the_schedule_of_the_experiment():
    experiment = Experiment(adaptation=replace(Experiment().adaptation, steps=7, learning_rate=1.0))
    for name in ("source_only_continued", "entropy_only", "bicl"):
        settings = adaptation_of(name, experiment)
        assert (settings.steps, settings.learning_rate) == (7, 1.0)
    assert adaptation_of("bicl", experiment) == experiment.adaptation
    assert adaptation_of("source_only_continued", experiment).contrast is None


def test_a_broken_test_label_is_told_before_training(tmp_path, tiny_experiment, tiny_data):
    data = tmp_path / "toy"
    shutil.copytree(tiny_data, data)
    label = next((data / "cityscapes" / "gtFine" / "test").rglob("*.png"))
    label.write_bytes(b"")
    with pytest.raises(ValueError, match="to be a picture, got 0 bytes"):
        load_scenario(tiny_experiment, data)
