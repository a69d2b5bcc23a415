"""Checkpoints: the newest kept, whole or absent, read without running anything."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from reference.atomic import durable_file
from reference.engine.checkpoints import Checkpoints


def test_the_newest_are_kept_and_last_names_the_newest(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    for iteration in (5, 10, 15):
        checkpoints.save(iteration, {"iteration": iteration})
    assert [path.name for path in checkpoints.files()] == ["00000010.pth", "00000015.pth"]
    assert checkpoints.newest() == {"iteration": 15}
    assert torch.load(tmp_path / "last.pth", weights_only=True) == {"iteration": 15}
    checkpoints.save_best({"iteration": 10})
    checkpoints.save(20, {"iteration": 20})
    assert torch.load(tmp_path / "best.pth", weights_only=True) == {"iteration": 10}
    assert not list(tmp_path.rglob("*.partial"))


def test_last_is_a_copy_where_a_disk_has_no_second_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    Checkpoints(tmp_path, keep=1).save(1, {"iteration": 1})
    assert torch.load(tmp_path / "last.pth", weights_only=True) == {"iteration": 1}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "state.pth"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), durable_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pth"]


def test_a_damaged_checkpoint_is_told(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(1, {"iteration": 1})
    path.write_bytes(path.read_bytes()[:100])
    start = re.escape(f"read_stored: expected a readable file of weights, got {path} (")
    with pytest.raises(ValueError, match=f"^{start}"):
        checkpoints.newest()
