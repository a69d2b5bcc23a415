"""The demo: what it writes, what it refuses, what is left when it is stopped."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reference import demo
from reference.commands import INTERRUPTED
from reference.demo import RESULTS, Options, mean_ious, run_demo, table
from reference.experiments import runs, targets
from reference.experiments.rows import CAPTIONS
from reference.run.folder import COMPARISON
from tests.reference.tiny_runs import few
from tests.reference.trees import contents

ROWS = [row for row in CAPTIONS if row != "entropy_only"]
Finished = tuple[Options, dict[str, Any]]


def numbers(results: dict[str, Any]) -> list[Any]:
    """What does not depend on the machine's load."""
    return [(record["row"], record["iou"]) for record in results["rows"]]


@pytest.fixture(scope="module", autouse=True)
def _few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "target_settings", few)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    place = tmp_path_factory.mktemp("runs")
    options = Options(run=place / "demo", data=place / "scenes", jobs=1)
    return options, run_demo(options)


def test_results_and_page_hold_every_row(finished: Finished) -> None:
    options, returned = finished
    results = json.loads((options.run / RESULTS).read_text())
    assert results == json.loads(json.dumps(returned))
    records = {record["row"]: record for record in results["rows"]}
    assert [*records] == ROWS
    for name, record in records.items():
        assert all(0 <= value <= 100 for value in record["iou"].values())
        assert record["miou"] == pytest.approx(statistics.mean(record["iou"].values()))
        assert (options.run / name / "settings.json").is_file()
    assert results["seconds"] > 0
    assert results["images"] == {"source": 6, "target": 6, "test": 5}
    assert {path.name for path in options.run.iterdir()} == {
        *ROWS, COMPARISON, RESULTS, "report.html",
    }  # fmt: skip
    told = json.loads((options.run / COMPARISON).read_text())
    assert [row["caption"] for row in told["rows"]] == [CAPTIONS[row] for row in ROWS]
    assert [row["role"] for row in told["rows"]].count("method") == 1
    page = (options.run / "report.html").read_text(encoding="utf-8")
    assert f"{records['bicl']['miou']:.1f}" in page
    assert all(CAPTIONS[row] in page for row in ROWS)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_whatever_runs_beside(finished, tmp_path):
    options = replace(finished[0], run=tmp_path / "again", jobs=2)
    again = run_demo(options)
    assert numbers(again) == numbers(finished[1])


def test_the_table_shows_every_class_the_mean_and_the_gain(finished: Finished) -> None:
    results = finished[1]
    lines = [[cell.strip() for cell in line.split("|")] for line in table(results).splitlines()]
    cells = {line[1]: line[2:-1] for line in lines if len(line) > 1}
    means = mean_ious(results)
    assert {*results["rows"][0]["iou"]} < {*cells}
    assert cells["mIoU"] == [f"{means[name]:.1f}" for name in ROWS]
    gain = means["bicl"] - means["source_only_continued"]
    assert cells["over continued"][1:3] == ["", f"{gain:+.1f}"]


@pytest.mark.parametrize(
    ("names", "found"),
    [(["notes.txt"], "notes.txt"), (["a", "b", "c"], "a and 2 more"), ([RESULTS], RESULTS)],
)
def test_a_folder_in_use_is_refused_before_anything_is_done(tmp_path, capsys, names, found):
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as caught:
        demo.main(["--run", str(folder)])
    assert str(caught.value) == (
        f"demo: expected run to be a new or empty folder, got {folder}, which holds {found}. "
        f"Hint: choose another one with --run, such as {folder}-2, or remove it first."
    )
    assert contents(tmp_path) == before and capsys.readouterr().out == ""


def test_wrong_options_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with pytest.raises(SystemExit, match=r"^demo: expected threads of at least 1, got 0\.$"):
        demo.main(["--run", str(folder), "--threads", "0"])
    with pytest.raises(SystemExit, match=r"^demo: expected target toy or night, got /data/town\."):
        demo.main(["--run", str(folder), "--target", "/data/town"])
    assert contents(tmp_path) == {}


def test_a_demo_that_was_stopped_goes_on(finished, tmp_path, monkeypatch, capsys):
    options = replace(finished[0], run=tmp_path / "demo")
    words = ["--run", str(options.run), "--data", str(options.data), "--jobs", "1"]
    trained, asked = runs.train_run, []

    def stopped(settings: Any, folder: Path) -> str | None:
        asked.append(folder.name)
        if folder.name == "bicl" and asked.count("bicl") == 1:
            raise KeyboardInterrupt
        return trained(settings, folder)

    monkeypatch.setattr(runs, "train_run", stopped)
    with pytest.raises(SystemExit) as caught:
        demo.main(words)
    assert caught.value.code == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    assert not (options.run / RESULTS).exists()
    demo.main(words)
    assert sorted(asked) == sorted([*ROWS, "bicl"])
    printed = capsys.readouterr().out
    assert "mIoU" in printed and "over continued" in printed and "Open " in printed
    results = json.loads((options.run / RESULTS).read_text())
    assert numbers(results) == numbers(finished[1])


def test_a_loss_that_explodes_ends_the_demo_in_a_sentence(finished, tmp_path, monkeypatch):
    sentence = "train: expected a finite loss, got entropy = nan at iteration 3 of round 0."
    monkeypatch.setattr(runs, "train_run", lambda settings, folder: sentence)
    with pytest.raises(SystemExit, match=sentence):
        demo.main(["--run", str(tmp_path / "demo"), "--data", str(finished[0].data), "--jobs", "1"])
