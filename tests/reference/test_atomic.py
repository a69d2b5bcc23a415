"""Files are whole or absent, also when two processes write the same one."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from reference.atomic import require_new_folder, write_atomically


def _write_often(path: Path, letter: str) -> None:
    for _ in range(100):
        write_atomically(path, letter * 10_000)


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 10_000, "b" * 10_000)
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_an_interrupted_write_leaves_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")

    def stop(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("reference.atomic.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_a_new_or_empty_folder_is_fine_and_stays_as_it_is(tmp_path):
    require_new_folder("demo", tmp_path / "none", "Hint: none.")
    require_new_folder("demo", tmp_path, "Hint: none.")
    assert list(tmp_path.iterdir()) == []
