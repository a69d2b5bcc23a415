"""Files are whole or absent, whatever the disk, the process or another writer does."""

import multiprocessing
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reference.run.files import durable_file, remove_partials, write_atomically


def _write_often(path: Path, letter: str) -> None:
    for _ in range(100):
        write_atomically(path, letter * 10_000)


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path):
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


@pytest.mark.parametrize("content", ["text", "tensors", "interrupted"])
def test_the_older_file_stays_where_the_disk_is_full_or_a_write_interrupted(tmp_path, content):
    path = tmp_path / "state.pth"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    start = re.escape(f"writing: expected to write {path}, got: ")
    full = pytest.raises(ValueError, match=f"^{start}.* Hint: free some space")
    try:
        if content == "interrupted":
            with pytest.raises(KeyboardInterrupt), durable_file(path) as file:
                file.write(b"half")
                raise KeyboardInterrupt
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        if content == "text":
            with full:
                write_atomically(path, "x" * 2000)
        if content == "tensors":
            with full, durable_file(path) as file:
                torch.save({"weights": torch.zeros(100_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^writing: expected to write .*, got: File exists\."):
        write_atomically(tmp_path / "file" / "inner.txt", "x")


def test_the_longest_name_can_be_written(tmp_path: Path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, "x")
    assert path.read_text() == "x"


def test_what_dead_processes_left_is_removed_and_what_others_write_is_not(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = [tmp_path / f"1.pth.{dead.pid}-0.partial", tmp_path / f"a.{os.getpid()}.partial"]
    other = [tmp_path / f"a.{os.getppid()}-3.partial", tmp_path / "my.partial"]
    for path in (*stale, *other):
        path.touch()
    remove_partials(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(other)
