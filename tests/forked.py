"""Processes that begin with torch and the recipe imported: one server imports, they are its forks.

Importing takes longer than a tiny run. The server is not the process of the tests, whose threads a
fork would lose.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
# What cannot be imported is left out; torch's own start_processes asks the same server. The first
# step of an optimiser imports torch's compiler, which takes as long as a tiny run.
CONTEXT.set_forkserver_preload(
    [
        *("protocontrast", "torch._dynamo"),
        *("reference.train", "reference.static_labels", "reference.run.state"),
    ]
)


class Forked(NamedTuple):
    """What tests ask of a subprocess.Popen."""

    process: Any

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def poll(self) -> int | None:
        code: int | None = self.process.exitcode
        return code

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        return self.poll()


def _enter(
    function: Callable[..., Any], arguments: tuple[Any, ...], log: Path, here: Path,
    environment: dict[str, str],
) -> None:  # fmt: skip
    os.setsid()
    os.chdir(here)
    os.environ.update(environment)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    function(*arguments)


def forked(function: Callable[..., Any], *arguments: Any, log: Path, **environment: str) -> Forked:
    """Call a function in a process group of its own; what it prints is appended to a file."""
    given = function, arguments, log, Path.cwd(), environment
    process = CONTEXT.Process(target=_enter, args=given)
    process.start()
    return Forked(process)


def on_ranks(
    function: Callable[..., Any], *arguments: Any, log: Path, world: int = 2, timeout: float = 120
) -> list[Any]:
    """Call a function on as many ranks, as torchrun tells them; the exit code of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    processes = [
        forked(function, *arguments, log=log, RANK=str(rank), LOCAL_RANK=str(rank), **meeting)
        for rank in range(world)
    ]
    return [process.wait(timeout) for process in processes]
