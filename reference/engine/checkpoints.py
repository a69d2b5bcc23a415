"""Checkpoints: whole or absent on disk, the newest few kept, never executed when read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from reference.atomic import durable_file, replace_durably
from reference.networks.tensor_files import read_stored

FOLDER: Final = "checkpoints"
LAST: Final = "last.pth"
BEST: Final = "best.pth"
_DIGITS: Final = 8


def _also_named(path: Path, name: Path) -> None:
    """Give a file a second name in one step, without a second copy where the disk can."""
    second = name.with_name(f"{name.name}.{os.getpid()}.partial")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
        replace_durably(second, name)
    except OSError:
        with durable_file(name) as file:
            file.write(path.read_bytes())


class Checkpoints:
    """The checkpoints of one run: ``checkpoints/<iteration>.pth``, ``last.pth``, ``best.pth``.

    Args:
        run: folder of the run.
        keep: how many by iteration are kept, >= 1.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run = run
        self.keep = keep

    def files(self) -> list[Path]:
        """List the checkpoints by iteration, the oldest first."""
        return sorted((self.run / FOLDER).glob(f"{'[0-9]' * _DIGITS}.pth"))

    def save(self, iteration: int, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then point ``last.pth`` to it, then remove the oldest.

        Args:
            iteration: steps done.
            state: tensors and plain values.
        """
        path = self.run / FOLDER / f"{iteration:0{_DIGITS}d}.pth"
        with durable_file(path) as file:
            torch.save(dict(state), file)
        _also_named(path, self.run / LAST)
        for old in self.files()[: -self.keep]:
            old.unlink()
        return path

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write ``best.pth``; before the checkpoint that remembers its score, never after.

        Args:
            state: tensors and plain values.
        """
        with durable_file(self.run / BEST) as file:
            torch.save(dict(state), file)

    def newest(self) -> dict[str, Any] | None:
        """Read the checkpoint with the most iterations; None where there is none.

        Raises:
            ValueError: it is damaged.
        """
        files = self.files()
        if not files:
            return None
        held: dict[str, Any] = read_stored(files[-1])
        return held
