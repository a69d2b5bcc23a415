"""The target pipeline never opens gtFine/train, as the interpreter's own audit tells."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.reference.small_sets import make_cityscapes

ROOT = Path(__file__).resolve().parents[2]


def _opened(root: Path, pipeline: str, workers: int) -> list[str]:
    command = ["-m", "tests.reference.opened_files", str(root), pipeline, str(workers)]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("workers", [0, 1])
def test_target_labels_are_never_opened(tmp_path: Path, workers: int) -> None:
    lines = _opened(make_cityscapes(tmp_path), "target", workers)
    assert len(lines) == 1
    assert lines[0].startswith("3 batches, ")
    assert not lines[0].endswith(" 0 paths of images")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_audit_sees_labels_that_are_opened(tmp_path: Path, workers: int) -> None:
    lines = _opened(make_cityscapes(tmp_path), "source", workers)
    expected = "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"
    assert any(line.startswith("opened ") and line.endswith(expected) for line in lines)
    assert lines[-1].startswith("3 batches, ")
