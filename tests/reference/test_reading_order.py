"""How much of `reference/` must be read to follow a run to its first step."""

import inspect
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import reference
from reference import train
from reference.run.state import State
from reference.settings import Settings
from tests.reference.tiny_runs import SEEN, changed
from tests.reference.trees import make

ROOT = Path(reference.__file__).resolve().parent
MOST_FILES = 20
LOOP, METHOD = 350, 100


class FirstStep(BaseException):
    """The weights are about to move for the first time."""


def files_entered(settings: Settings, folder: Path) -> set[str]:
    """Files of `reference/` in which a function is called before the first step."""
    entered: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        # The body of a module or of a class that is imported late is no function.
        if event != "call" or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
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


def toy(_: Path) -> Settings:
    """Drawn scenes and their small network."""
    return changed(network={"kind": "toy"})


def gta5_to_cityscapes(root: Path) -> Settings:
    """Sets as they are downloaded, and DeepLab-V2 with random weights."""
    make(root / "gta5", "gta5")
    make(root / "cityscapes", "cityscapes", splits=("train", "val"))
    sets = {"source_set": "gta5", "target_set": "cityscapes", "root": root}
    return changed(SEEN, data=sets, network={"kind": "deeplab"})


@pytest.mark.parametrize("chosen", [toy, gta5_to_cityscapes])
def test_few_files_are_entered_before_the_first_step(chosen, tmp_path):
    settings = chosen(tmp_path)
    entered = files_entered(settings, tmp_path / "run")
    network = f"networks/{settings.network.kind}.py"
    assert {"train.py", "method.py", "data/batches.py", network} <= entered
    assert len(entered) <= MOST_FILES, sorted(entered)


def test_the_house_stays_small_and_the_loop_and_the_method_short() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in ROOT.rglob("*.py")}
    assert len(lines) <= 82 and sum(lines.values()) <= 14_400
    assert lines[ROOT / "train.py"] <= LOOP and lines[ROOT / "bicl.py"] <= METHOD
