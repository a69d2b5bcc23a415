"""How much of `reference/` must be read to follow a run to its first step."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import reference
from reference import train
from reference.run.state import State
from reference.settings import Settings

ROOT = Path(reference.__file__).resolve().parent
MOST_FILES = 20
LOOP, METHOD = 350, 100


class FirstStep(BaseException):
    """The weights are about to move for the first time."""


def files_entered(settings: Settings, folder: Path) -> set[str]:
    """Files of `reference/` in which a function is called before the first step."""
    entered: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        path = Path(frame.f_code.co_filename)
        if ROOT in path.parents:
            entered.add(str(path.relative_to(ROOT)))
        if frame.f_code is State.move.__code__:
            raise FirstStep

    sys.setprofile(watch)
    try:
        train.train(settings, folder)
    except FirstStep:
        return entered
    finally:
        sys.setprofile(None)
    raise AssertionError("the run ended before its first step")


def test_few_files_are_entered_before_the_first_step(tiny_toy: Settings, tmp_path: Path) -> None:
    entered = files_entered(tiny_toy, tmp_path / "run")
    assert {"train.py", "method.py", "data/batches.py", "networks/toy.py"} <= entered
    assert len(entered) <= MOST_FILES, sorted(entered)


def test_the_loop_and_the_method_are_short() -> None:
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in ("train.py", "bicl.py")}
    assert lines["train.py"] <= LOOP and lines["bicl.py"] <= METHOD, lines


def test_the_house_stays_small() -> None:
    files = [*ROOT.rglob("*.py")]
    assert len(files) <= 82
    assert sum(len(path.read_text().splitlines()) for path in files) <= 14_600
