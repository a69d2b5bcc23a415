"""The folder of a run: one process at a time, what it records, refuses and falls back to."""

import json
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from reference.run.folder import RunFolder, as_plain, commit, differences
from reference.run.ranks import Ranks, joined
from reference.settings import Machine, Settings
from tests.reference.killed import killed
from tests.reference.tiny_runs import ROOT

PLAIN: dict[str, Any] = {
    "seed": 0,
    "data": {"workers": 1, "source": "a", "source_set": "toy", "root": None},
    "adaptation": {"iterations": 6},
    "reporting": {"every": 5, "keep": 2},
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**PLAIN, **changes}


def opened(path: Path, plain: dict[str, Any] = PLAIN, *, resume: bool = True) -> RunFolder:
    return RunFolder(path, plain, Ranks(), resume=resume)


def begin(path: Path, *iterations: int) -> None:
    """A run that saved checkpoints."""
    with opened(path) as folder:
        folder.record(0)
        for iteration in iterations:
            state = {"iteration": iteration, "settings": PLAIN, "w": torch.full((999,), iteration)}
            folder.save(iteration, state)


def test_only_what_changes_numbers_is_a_difference():
    data = {"workers": 9, "source": "b", "source_set": "gta5", "root": "/data"}
    assert differences(PLAIN, PLAIN) == []
    assert differences(PLAIN, changed(seed=1, data=data, reporting={"every": 1}, more=2)) == [
        "data.source_set: 'toy' -> 'gta5'",
        "more: None -> 2",
        "seed: 0 -> 1",
    ]


def test_a_setting_that_is_newer_than_a_run_had_its_default_and_one_that_is_gone_its_last() -> None:
    now, before = as_plain(Settings()), as_plain(Settings())
    del before["adaptation"]["contrast"]["agree"], before["machine"]["backend"]
    before["data"]["drawn"]["varied"] = False
    assert differences(before, now) == []
    now["adaptation"]["contrast"]["agree"] = before["data"]["drawn"]["varied"] = True
    # The backend may change, as it could not before.
    now["machine"]["backend"] = "eager"
    told = ["adaptation.contrast.agree: False -> True", "data.drawn.varied: True -> False"]
    assert differences(before, now) == told


def test_the_newest_are_kept_and_last_names_the_newest(tmp_path: Path):
    begin(tmp_path / "run", 5, 10, 15)
    with opened(tmp_path / "run") as folder:
        assert [path.name for path in folder.checkpoints()] == ["00000010.pth", "00000015.pth"]
        assert folder.checkpoint is not None and folder.checkpoint["iteration"] == 15
        folder.save_best({"iteration": 10})
        folder.save(20, {"iteration": 20, "settings": PLAIN})
    assert torch.load(tmp_path / "run" / "best.pth") == {"iteration": 10}
    assert torch.load(tmp_path / "run" / "last.pth")["iteration"] == 20
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    told = f"^writing: expected to write {tmp_path / 'file' / 'run'}, got: Not a directory. Hint: "
    with pytest.raises(ValueError, match=told), opened(tmp_path / "file" / "run"):
        pass


def test_last_is_a_copy_where_a_disk_has_no_second_names(tmp_path, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    begin(tmp_path / "run", 1)
    assert torch.load(tmp_path / "run" / "last.pth")["iteration"] == 1


def recorded(path: Path) -> str:
    begin(path)
    line: str = json.loads((path / "origin.json").read_text())["starts"][0]["command"]
    return line


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_records_the_command_that_started_it(tmp_path: Path, method: str):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        child = pool.submit(recorded, tmp_path / "run").result()
    assert "pytest" in child and "multiprocessing" not in child
    assert shlex.split(child)[-len(sys.argv) + 1 :] == sys.argv[1:] or len(sys.argv) == 1


def test_a_run_is_recorded_and_a_resumed_one_adds_its_start(tmp_path: Path):
    begin(tmp_path / "run", 7)
    with opened(tmp_path / "run", changed(reporting={"every": 1})) as folder:
        assert folder.record(7) == []
    assert json.loads((tmp_path / "run" / "settings.json").read_text()) == PLAIN
    starts = json.loads((tmp_path / "run" / "origin.json").read_text())["starts"]
    assert [start["iteration"] for start in starts] == [0, 7]
    assert all(start["command"] and start["versions"]["torch"] for start in starts)


def test_a_run_that_is_killed_at_any_operation_on_a_file_goes_on(tmp_path: Path) -> None:
    for path in killed(tmp_path, lambda folder: begin(folder, 4), least=10):
        with opened(path) as folder:
            folder.record(0 if folder.checkpoint is None else 4)
            if folder.checkpoint is not None:
                assert torch.load(path / "last.pth")["iteration"] == 4
            folder.save(8, {"iteration": 8, "settings": PLAIN})
        assert torch.load(path / "last.pth")["iteration"] == 8
        assert json.loads((path / "settings.json").read_text()) == PLAIN
        assert not list(path.rglob("*.partial"))


def test_another_number_of_threads_is_told_as_other_bits(tmp_path: Path):
    begin(tmp_path / "run", 7)
    with opened(tmp_path / "run") as folder, joined(Machine(threads=7)):
        (note,) = folder.record(7)
    assert note.startswith("the run goes on with 7 as the number of threads (OMP_NUM_THREADS), ")


@pytest.mark.parametrize(("known", "backend"), [(True, "auto"), (False, "auto"), (True, "eager")])
def test_another_backend_is_told_as_other_bits(tmp_path, monkeypatch, known, backend):
    """By itself, as on a machine with a compiler, or asked for; an old run does not say its own."""
    monkeypatch.setattr("protocontrast.backends", lambda: {"native": "not usable: no compiler"})
    begin(tmp_path / "run", 7)
    origin = tmp_path / "run" / "origin.json"
    held = json.loads(origin.read_text())
    assert held["starts"][0]["machine"]["backend"] == "eager"
    if not known:
        del held["starts"][0]["machine"]["backend"]
        origin.write_text(json.dumps(held))
    monkeypatch.setattr("protocontrast.backends", lambda: {"native": "usable: avx2"})
    with opened(tmp_path / "run", changed(machine={"backend": backend})) as folder:
        notes = folder.record(7)
    told = "the run goes on with native avx2 as the backend of the losses, eager before"
    assert [note.partition(":")[0] for note in notes] == [told] * (backend == "auto")


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_without_a_run_is_never_used(tmp_path: Path, resume: bool):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"^train: expected folder to be a .*holds notes\.txt\. "):
        opened(tmp_path, resume=resume).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_is_refused_before_it_is_recorded_leaves_nothing(tmp_path: Path):
    with opened(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_with_a_list_and_a_longer_run_with_a_way(tmp_path: Path):
    begin(tmp_path / "run", 6)
    with pytest.raises(ValueError, match=r"got 1 other: seed: 0 -> 5\. Hint: give the old ones"):
        opened(tmp_path / "run", changed(seed=5)).__enter__()
    more = changed(adaptation={"iterations": 9})
    with pytest.raises(ValueError, match=r"iterations: 6 -> 9\. Hint: .* --stages adapt --begin "):
        opened(tmp_path / "run", more).__enter__()
    # Refusing has given the folder back.
    with opened(tmp_path / "run") as folder:
        assert folder.checkpoint is not None


HOLD = """
import sys, time
from pathlib import Path
from multiprocessing import get_context
from reference.run.folder import RunFolder
from reference.run.ranks import Ranks
with RunFolder(Path(sys.argv[1]), {"reporting": {}}, Ranks(), resume=True) as folder:
    folder.record(0)
    # A worker of the data outlives its parent for a while.
    get_context("fork").Process(target=time.sleep, args=(20,)).start()
    (folder.path / "ready").touch()
    time.sleep(60)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path):
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(run)]
    first = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        wait_for(run / "ready")
        before = {path: path.read_bytes() for path in run.iterdir()}
        with pytest.raises(ValueError, match=f"got a second one beside process {first.pid} on "):
            opened(run, {"reporting": {}}).__enter__()
        assert {path: path.read_bytes() for path in run.iterdir()} == before
        first.kill()
        first.wait()
        # Killed before its first checkpoint, it begins anew.
        with opened(run, {"reporting": {}}) as folder:
            assert folder.checkpoint is None
    finally:
        os.killpg(first.pid, 9)


def test_the_older_checkpoint_is_used_where_the_newest_is_damaged(tmp_path: Path):
    run = tmp_path / "run"
    begin(run, 3, 6)
    newest = run / "checkpoints" / "00000006.pth"
    stored = bytearray(newest.read_bytes())
    stored[len(stored) // 2] ^= 16
    newest.write_bytes(stored)
    with opened(run) as folder:
        assert folder.checkpoint is not None and folder.checkpoint["iteration"] == 3
        (note,) = folder.record(3)
    assert note.startswith(f"{newest} cannot be read, so the run goes on from an older checkpoint.")
    # Nothing is thrown away, and nothing reads the damaged one again.
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["00000003.pth", "00000006.pth.damaged"]
    assert torch.load(run / "last.pth")["iteration"] == 3


@pytest.mark.parametrize("name", ["settings.json", "origin.json"])
def test_a_file_of_json_without_a_table_is_refused(tmp_path: Path, name: str):
    begin(tmp_path / "run", 3)
    (tmp_path / "run" / name).write_text("[1]")
    with (
        pytest.raises(ValueError, match=rf"^train: expected JSON in .*{name}, got something else"),
        opened(tmp_path / "run") as folder,
    ):
        folder.record(3)


@pytest.mark.parametrize(("name", "sentence"), [
    ("settings.json", r"JSON in .*/settings\.json, got something else \("),
    ("checkpoints/00000003.pth", "a whole checkpoint in .*, got 1 that cannot be read: "),
])  # fmt: skip
def test_a_run_whose_files_are_damaged_is_refused(tmp_path: Path, name: str, sentence: str):
    begin(tmp_path / "run", 3)
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(ValueError, match=f"^train: expected {sentence}"):
        opened(tmp_path / "run").__enter__()
    assert path.is_file()


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
