"""What commands share: how a trained network is used, how a command line is read and answered."""

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar

import tyro

T = TypeVar("T")

INTERRUPTED: Final = 130
# A process of a pool that the system ended is a BrokenExecutor.
_TOLD: Final = (ValueError, ImportError, FloatingPointError, OSError, BrokenExecutor)
_FEWER: Final = "Hint: fewer need less memory; with 0 an error shows where it arose."


@dataclass(frozen=True, kw_only=True)
class Use:
    """How a trained network is used; a comment above a field is its help."""

    # the card of a trained network, whose weights lie beside it, or a checkpoint of a run
    weights: Path
    # folder for the results; must be new or empty
    out: Path
    # of a checkpoint: the trained network, or its moving average
    which: Literal["student", "teacher"] = "student"
    # (height, width) at which the network sees the images, pixels; 512 0: each keeps its shape,
    # with a short side of 512; 0 0: as its file says
    size: tuple[int, int] = (0, 0)
    # times the size; several are averaged. Published single-scale rows use 1
    scales: tuple[float, ...] = (1.0,)
    # average with the mirrored image
    flip: bool = False
    # (height, width) of a window that slides over the scaled image, pixels; 0 0: see it as a whole
    window: tuple[int, int] = (0, 0)
    # (down, right) steps of the window, pixels; 0 0: two thirds of it
    stride: tuple[int, int] = (0, 0)
    # auto takes a GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of torch, on the CPU
    threads: int = 2


def read(options: type[T], command: str, words: Sequence[str] | None = None) -> T:
    """Read the command line of `python -m reference.<command>`."""
    if issubclass(options, Use) and "--source" in (words or sys.argv):
        sys.exit(f"{command}: expected no --source, got one. Hint: leave it out; files say theirs.")
    return tyro.cli(options, prog=f"python -m reference.{command}", args=words)


def laid_out(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown that a terminal shows as one: numbers stand below each other."""
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    ruler = ["-" * first, *("-" * (wide - 1) + ":" for wide in others)]
    padded = (
        [f"{name:<{first}}", *(f"{cell:>{wide}}" for cell, wide in zip(cells, others, strict=True))]
        for name, *cells in (lines[0], ruler, *lines[1:])
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def is_first_process() -> bool:
    """Whether this is the first process of torchrun, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def spoken_once(work: Callable[[], T]) -> T:
    """Do what every process of torchrun does alike; the first one alone prints."""
    if "RANK" not in os.environ:
        return work()
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return work()
    except SystemExit as ended:
        refused = isinstance(ended.code, str)
        told, code = (ended.code, 1) if refused else (said.getvalue().strip(), ended.code)
        _end(str(told), int(code or 0), is_first_process())


def _end(told: str, code: int, news: bool) -> NoReturn:
    """End with a sentence, which torchrun repeats at the end of a long report of its own."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        more = {"py_callstack": told, "timestamp": str(int(time.time()))}
        Path(path).write_text(json.dumps({"message": {"message": told, "extraInfo": more}}))
    if news and code != 1:
        print(told, file=sys.stderr if code else sys.stdout)
    sys.exit(told if news and code == 1 else code)


def answer(
    work: Callable[[], T], stopped: str = "Stopped.", *, failed: int = 1,
    is_news: Callable[[str], bool] = lambda sentence: True,
) -> T:  # fmt: skip
    """Do the work of a command; a wrong input, or Ctrl-C, ends it with one sentence.

    `is_news` says whether a sentence is to be printed, which another process may have done.
    """
    try:
        return work()
    except Exception as error:
        told, code = str(error), failed
        if "DataLoader worker" in told:
            # Torch tells of a worker's end wherever the process is; a traceback of its is indented.
            told = " ".join(re.sub(r"(?s).*\n  [^\n]*\n", "", told).rstrip(". \n").split())
            told = f"data: expected every worker to read to the end, got {told}. {_FEWER}"
        elif not isinstance(error, _TOLD):
            raise
    except KeyboardInterrupt:
        told, code = stopped, INTERRUPTED
    _end(told, code, is_news(told))
