"""A run is read back from its folder, in the middle and at its end; other folders are refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reference.engine.presets import PRESETS
from reference.engine.recorded_run import nearest_preset, read_metrics, read_run
from reference.engine.recorded_settings import as_plain
from reference.report import Options, main, write_report
from tests.reference.test_report import foreign, parsed


def test_everything_of_a_run_is_found(seen_run: Path):
    facts = read_run(seen_run)
    assert (facts.name, facts.done, facts.planned, facts.first_adapted) == ("run", 9, 9, 3)
    assert facts.boundaries == [3, 6]
    assert [r["iteration"] for r in facts.evaluations] == [3, 6, 9]
    assert len(facts.column("source_cross_entropy")) == 9
    assert [iteration for iteration, _ in facts.column("coverage")] == [4, 5, 6, 7, 8, 9]
    shares = [r for r in facts.rows if "share_road" in r]
    assert len(shares) == 6
    for found in shares:
        total = sum(value for name, value in found.items() if name.startswith("share_"))
        assert total == pytest.approx(1.0)
    assert facts.table is not None and len(facts.table["rows"][0]["iou"]) == 14
    assert [strips[0].domain for strips in facts.strips] == [
        "validation", "target", "target", "source", "source",
    ]  # fmt: skip
    assert [strip.iteration for strip in facts.strips[1]] == [3, 4, 6, 9]
    assert [iteration for iteration, _ in facts.moments] == [4, 6, 9]
    assert facts.moments[-1][1].calibrated is not None
    assert [start["iteration"] for start in facts.starts] == [0]


def test_the_command_writes_a_page_that_stands_alone(
    seen_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "page.html"
    main([str(seen_run), "--out", str(page)])
    assert capsys.readouterr().out == f"Open {page}\n"
    document = page.read_text(encoding="utf-8")
    read = parsed(document)
    assert (read.faults, read.open, foreign(read, document)) == ([], [], [])
    for section in ("Classes", "Over time", "Prototypes", "Losses", "Course", "How it was made"):
        assert f"<h2>{section}</h2>" in document


def test_a_run_in_the_middle_has_a_page(seen_run: Path, tmp_path: Path):
    folder = tmp_path / "half"
    folder.mkdir()
    shutil.copy(seen_run / "settings.json", folder)
    lines = (seen_run / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(lines[:3]) + lines[3][:20])
    facts = read_run(folder)
    assert (facts.done, facts.starts, facts.table, facts.strips, facts.moments) == (
        2, [], None, [], [],
    )  # fmt: skip
    write_report(Options(folder))
    assert "Not evaluated, after 2 of 9 iterations." in (folder / "report.html").read_text()


def test_without_kept_prototypes_those_of_the_checkpoint_are_shown(seen_run: Path, tmp_path: Path):
    for name in ("settings.json", "last.pth"):
        shutil.copy(seen_run / name, tmp_path)
    assert [iteration for iteration, _ in read_run(tmp_path).moments] == [9]
    plain = json.loads((tmp_path / "settings.json").read_text())
    plain["adaptation"]["contrast"]["calibrate"] = False
    (tmp_path / "settings.json").write_text(json.dumps(plain))
    assert read_run(tmp_path).moments[0][1].calibrated is None


@pytest.mark.parametrize(
    ("mode", "planned", "first"), [("source-only", 3, None), ("adapt", 6, 0), ("full", 9, 3)]
)
def test_how_long_a_run_is_planned_to_be(
    seen_run: Path, tmp_path: Path, mode: str, planned: int, first: int | None
):
    plain = json.loads((seen_run / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps({**plain, "mode": mode}))
    facts = read_run(tmp_path)
    assert (facts.planned, facts.first_adapted) == (planned, first)


def test_torn_and_strange_rows_are_left_out(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == []
    path.write_text("iteration,phase,coverage\n1,source,\n2,round 0,0.5\n3,round 0,x\n,,1\n4,roun")
    assert read_metrics(path) == [
        {"iteration": 1, "phase": "source"},
        {"iteration": 2, "phase": "round 0", "coverage": 0.5},
    ]


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_recognised_with_what_was_changed(name: str):
    settings = PRESETS[name][1]
    assert nearest_preset(as_plain(settings)) == (name, [])
    contrast = replace(settings.adaptation.contrast, temperature=0.25)
    adaptation = replace(settings.adaptation, contrast=contrast)
    changed = replace(settings, seed=7, adaptation=adaptation)
    assert nearest_preset(json.loads(json.dumps(as_plain(changed)))) == (
        name,
        ["adaptation.contrast.temperature: 0.1 -> 0.25"],
    )


def test_another_folder_is_refused_and_left_alone(tmp_path: Path):
    sentence = (
        f"report: expected the folder of a run of reference.train, got {tmp_path}, which has no "
        "settings.json. Hint: give the folder that --run named."
    )
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        main([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_damaged_settings_are_told(tmp_path: Path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(
        ValueError,
        match=rf"^report: expected JSON in {re.escape(str(tmp_path))}/settings\.json, got "
        r"something else \(.*\)\.$",
    ):
        read_run(tmp_path)


def test_a_page_replaces_pages_only(seen_run: Path, tmp_path: Path):
    begin = "report: expected out to be a file that ends in .html, got "
    folder = tmp_path / "a.html"
    folder.mkdir()
    with pytest.raises(ValueError, match=f"^{re.escape(f'{begin}{folder}, which is a folder.')}$"):
        write_report(Options(seen_run, folder))
    other = tmp_path / "metrics.csv"
    sentence = f'{begin}{other}, which is a name that ends in ".csv".'
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        write_report(Options(seen_run, other))
    assert not other.exists()
