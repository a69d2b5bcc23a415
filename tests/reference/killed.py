"""Work on files that is killed before each of its operations in turn."""

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OPERATIONS = {"os.mkdir", "os.rename", "os.link", "os.remove"}


def _work_and_die(work: Callable[[Path], object], folder: Path, operation: int) -> None:
    left, mine = operation, os.getpid()

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if not (opens or event in OPERATIONS) or os.getpid() != mine:
            return
        left -= 1
        if not left:
            os.kill(mine, signal.SIGKILL)

    sys.addaudithook(count)
    work(folder)


def killed(place: Path, work: Callable[[Path], object], *, least: int) -> Iterator[Path]:
    """Yield, for each operation on a file of `work(folder)`, a folder where it died before it.

    The folder is missing at first. Work with fewer than `least` operations is not what was meant.
    """
    for operation in itertools.count(1):
        folder = place / f"killed-{operation}"
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_work_and_die, args=(work, folder, operation))
        process.start()
        process.join(60)
        if process.exitcode == 0:
            assert operation > least
            return
        assert process.exitcode == -signal.SIGKILL
        yield folder


def assert_starts_again(place: Path, work: Callable[[Path], object], *, least: int) -> None:
    """After a kill at any operation the same work is done, or refused with a hint that works."""
    for folder in killed(place, work, least=least):
        try:
            work(folder)
            assert not list(folder.rglob("*.partial"))
        except ValueError as error:
            assert str(error).endswith("Hint: choose another one with --out.")
            work(folder.with_name(f"{folder.name}-again"))
