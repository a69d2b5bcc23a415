"""The target pipeline never opens labels of training images, as the interpreter's audit tells."""

import json
import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pytest

from reference.data.batches import batches
from reference.data.sets import Sets
from reference.data.settings import Crops, DataSettings
from tests.forked import forked
from tests.reference.trees import make, save_image, save_values

OPENED: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], str | Path):
        OPENED.append(path := str(arguments[0]))
        # A worker's list stays in the worker.
        if any(part in path for part in ("truth", "gtFine", "/gt/")):
            print(f"opened {path}", flush=True)


def read_split(root: Path, layout: str, pipeline: str, workers: int) -> None:
    """Print the labels that are opened; in a process of its own, which an audit never leaves.

    "target" is the pipeline of adaptation; "oracle" reads the same split with its labels.
    """
    folders = {"target": root}
    if layout == "own":
        folders = {"target": root / "photographs", "classes": root / "classes.json"}
        folders["target_labels"] = root / "truth"
    sets = Sets(DataSettings(target_set=layout, **folders))
    sys.addaudithook(_note)
    # Workers are forks of this process, into which the audit follows.
    multiprocessing.set_start_method("fork", force=True)
    images = sets.target if pipeline == "target" else sets.oracle
    crops = Crops(size=(4, 6), crop=(4, 4))
    drawn = batches(images, crops, seed=0, stream=1, start=0, stop=3, batch_size=2, workers=workers)
    print(f"{len(list(drawn))} batches, {len(OPENED)} paths", flush=True)


def _opened(root: Path, layout: str, pipeline: str, workers: int) -> list[str]:
    if layout == "own":
        classes = [{"name": "road", "colour": [9, 9, 9], "ids": [1]}]
        (root / "classes.json").write_text(json.dumps(classes))
        save_image(root / "photographs" / "a.jpg")
        save_values(root / "truth" / "a.png", np.ones((8, 12), dtype=np.uint8))
    else:
        make(root, layout)
    log = root / "read.log"
    process = forked(read_split, root, layout, pipeline, workers, log=log)
    assert process.wait(timeout=120) == 0, log.read_text()
    return log.read_text().splitlines()


@pytest.mark.parametrize("layout", ["cityscapes", "own"])
@pytest.mark.parametrize("workers", [0, 1])
def test_target_labels_are_never_opened(tmp_path: Path, layout: str, workers: int) -> None:
    (told,) = _opened(tmp_path, layout, "target", workers)
    assert told.startswith("3 batches, ")
    assert not told.endswith(" 0 paths")


@pytest.mark.parametrize(("layout", "workers"), [("own", 0), ("acdc", 1)])
def test_the_audit_sees_labels_that_are_opened(tmp_path: Path, layout: str, workers: int) -> None:
    told = _opened(tmp_path, layout, "oracle", workers)
    assert any(line.startswith("opened ") and line.endswith(".png") for line in told)
    assert told[-1].startswith("3 batches, ")
