"""A run is read back from its folder, in the middle and at its end; other folders are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reference.pictures.recorded_run import nearest_preset, read_comparison, read_run
from reference.presets import PRESETS
from reference.run.folder import as_plain, flat
from tests.reference.written_runs import NAMES, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "second")


def test_everything_of_a_run_is_read(run: Path):
    read = read_run(run)
    assert (read.caption, read.role, read.done, read.planned) == ("second", "method", 30, 30)
    assert read.boundaries == [10, 20]
    assert [row["iteration"] for row in read.evaluations] == [10, 20, 30]
    assert read.column("coverage", 100) == [(20.0, 50.0), (30.0, 75.0)]
    assert read.columns("loss_") == ["source_cross_entropy", "entropy", "spread"]
    assert read.score == 40.125
    assert list(read.classes) == list(NAMES)
    assert read.confusion[1] == [0, 40, 60]
    assert [strips[0].domain for strips in read.strips] == ["validation", "target"]
    assert [strip.iteration for strip in read.strips[0]] == [10, 20, 30]
    assert [iteration for iteration, _ in read.moments] == [12, 20, 30]
    assert read.moments[-1][1].calibrated is not None
    assert read.alarms == ["car floods the <target>."]


def test_a_run_in_the_middle_has_what_is_there(tmp_path: Path):
    begun = "iteration,phase,coverage\n1,source,\n2,source,0.5\n"
    read = read_run(write_run(tmp_path / "half", metrics=begun, parts=("settings",)))
    assert (read.done, read.planned, read.score) == (2, 30, None)
    assert (read.table, read.classes, read.confusion) == (None, {}, None)
    assert not (read.starts or read.strips or read.moments or read.alarms or read.evaluations)
    # A checkpoint alone is a run, too.
    read = read_run(write_run(tmp_path / "only", metrics="", parts=("checkpoint",)))
    assert (read.done, read.settings["seed"], list(read.classes)) == (30, 0, list(NAMES))
    assert [iteration for iteration, _ in read.moments] == [30]


def test_calibration_that_is_off_is_not_drawn(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "off")
    plain = json.loads((run / "settings.json").read_text())
    plain["adaptation"]["contrast"]["calibrate"] = False
    (tmp_path / "off" / "settings.json").write_text(json.dumps(plain))
    assert read_run(tmp_path / "off").moments[0][1].calibrated is None


@pytest.mark.parametrize(
    "expected", ["source-only 10 source", "oracle 10 oracle", "adapt 20 method", "full 30 method"]
)
def test_how_long_a_run_is_and_what_it_is_to_others(tmp_path: Path, expected: str):
    stages = expected.partition(" ")[0]
    read = read_run(write_run(tmp_path / "run", stages=stages, metrics="", parts=("settings",)))
    assert f"{stages} {read.planned} {read.role}" == expected


def test_several_folders_or_one_that_holds_them(tmp_path: Path):
    plain = {"metrics": "", "parts": ("settings",)}
    write_run(tmp_path / "a", stages="source-only", **plain)
    write_run(tmp_path / "b", stages="source-only", iterations=(30, 20), **plain)
    write_run(tmp_path / "c", stages="adapt", **plain)
    (tmp_path / "data").mkdir()
    for folders in ([tmp_path], [tmp_path / name for name in "abc"]):
        roles = [(run.caption, run.role) for run in read_comparison(folders).runs]
        assert roles == [("a", "source"), ("b", "control"), ("c", "method")]
    write_run(tmp_path / "other" / "c", **plain)
    captions = [run.caption for run in read_comparison([tmp_path / "c", tmp_path / "other"]).runs]
    assert captions == ["c (1)", "c (2)"]


def test_a_comparison_names_its_runs_and_waits_for_those_to_come(tmp_path: Path):
    write_run(tmp_path / "x", metrics="", parts=("settings",))
    rows = [
        {"folder": "x", "caption": "entropy only", "role": "other"},
        {"folder": "y", "caption": "BiCL", "role": "method"},
    ]
    path = tmp_path / "comparison.json"
    named = {"title": "Streets", "target": "9 images", "note": "", "rows": rows}
    path.write_text(json.dumps(named))
    read = read_comparison([tmp_path])
    assert (read.title, read.target) == ("Streets", "9 images")
    assert [(run.caption, run.role) for run in read.runs] == [("entropy only", "other")]
    for poor, sentence in (
        (rows[1:], "expected a run in .*, got none that has begun"),
        ([{}], "expected rows with folder, caption and role"),
    ):
        path.write_text(json.dumps({"rows": poor}))
        with pytest.raises(ValueError, match=f"^report: {sentence}"):
            read_comparison([tmp_path])


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_nearest_preset_is_recognised_in_spite_of_a_change(name: str):
    settings = PRESETS[name][1]
    contrast = replace(settings.adaptation.contrast, temperature=0.25)
    changed = replace(settings, seed=7, adaptation=replace(settings.adaptation, contrast=contrast))
    nearest, usual = nearest_preset(json.loads(json.dumps(flat(as_plain(changed)))))
    assert (nearest, usual["adaptation.contrast.temperature"]) == (name, 0.1)


@pytest.mark.parametrize(("held", "sentence"), [
    (None, r"the folder of a run of reference.train, got .*, which has no settings.json"),
    ("[]", r"the settings of a run in .*, got none with stages"),
    ('{"mode": "full"}', r"the settings of a run in .*, got none with stages"),
    ("{", r"JSON in .*/settings.json, got something else"),
])  # fmt: skip
def test_what_is_no_run_is_refused(tmp_path: Path, held: str | None, sentence: str):
    if held is not None:
        (tmp_path / "settings.json").write_text(held)
    with pytest.raises(ValueError, match=rf"^report: expected {sentence}"):
        read_comparison([tmp_path])
