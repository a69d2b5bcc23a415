"""The target pipeline never opens labels of training images, as the interpreter's audit tells."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.reference.trees import make, save_image, save_values

ROOT = Path(__file__).resolve().parents[2]


def _opened(root: Path, layout: str, pipeline: str, workers: int) -> list[str]:
    if layout == "own":
        classes = [{"name": "road", "colour": [9, 9, 9], "ids": [1]}]
        (root / "classes.json").write_text(json.dumps(classes))
        save_image(root / "photographs" / "a.jpg")
        save_values(root / "truth" / "a.png", np.ones((8, 12), dtype=np.uint8))
    else:
        make(root, layout)
    command = [sys.executable, "-m", "tests.reference.opened_files"]
    command += [str(root), layout, pipeline, str(workers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


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
