"""The folder of a run: what it records, what it refuses, how settings are compared."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from reference.engine.checkpoints import Checkpoints
from reference.engine.presets import PRESETS
from reference.engine.recorded_settings import as_plain, differences
from reference.engine.run_folder import commit, open_run, record

PLAIN = {"seed": 0, "data": {"workers": 1, "drawn_size": [3, 4]}, "reporting": {"every": 5}}


def test_settings_are_plain_values():
    for _, settings in PRESETS.values():
        plain = as_plain(settings)
        assert json.loads(json.dumps(plain)) == plain


def test_only_what_changes_numbers_is_a_difference():
    other = {"seed": 1, "data": {"workers": 9, "drawn_size": [3, 5]}, "reporting": {"every": 1}}
    assert differences(PLAIN, PLAIN) == []
    assert differences(PLAIN, other) == [
        "data.drawn_size: [3, 4] -> [3, 5]",
        "seed: 0 -> 1",
    ]
    assert differences(PLAIN, {**PLAIN, "more": 2}) == ["more: None -> 2"]


def test_a_run_is_recorded_and_a_resumed_one_adds_its_start(tmp_path: Path):
    record(tmp_path, PLAIN, 0)
    record(tmp_path, {**PLAIN, "reporting": {"every": 1}}, 7)
    assert json.loads((tmp_path / "settings.json").read_text()) == PLAIN
    starts = json.loads((tmp_path / "origin.json").read_text())["starts"]
    assert [start["iteration"] for start in starts] == [0, 7]
    assert all(start["command"] and start["versions"]["torch"] for start in starts)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path):
    record(tmp_path, PLAIN, 0)
    assert open_run(tmp_path, PLAIN, Checkpoints(tmp_path, 1), resume=True) is None


def test_a_folder_without_a_run_is_not_resumed(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    sentence = (
        f"train: expected run to be a new or empty folder, got {tmp_path}, which holds notes.txt. "
        "Hint: choose another one with --run, or go on with --resume auto."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        open_run(tmp_path, PLAIN, Checkpoints(tmp_path, 1), resume=True)


def test_damaged_settings_are_told(tmp_path: Path):
    (tmp_path / "settings.json").write_text("{")
    start = re.escape(f"train: expected JSON in {tmp_path / 'settings.json'}, got something else (")
    with pytest.raises(ValueError, match=f"^{start}"):
        open_run(tmp_path, PLAIN, Checkpoints(tmp_path, 1), resume=True)


def test_the_commit_says_whether_files_were_changed(tmp_path: Path):
    assert commit(tmp_path) is None

    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    clean = commit(tmp_path)
    assert clean is not None and re.fullmatch("[0-9a-f]{40}", clean)
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{clean}+changes"
