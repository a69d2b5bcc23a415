"""The digest of the code: it moves with what can change a number, and with nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reference.provenance import code_digest

from reference import provenance


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in ("reference/score.py", "reference/training/losses.py", "protocontrast/bank.py"):
        written(tmp_path, place, "1")
    return tmp_path


def written(root: Path, place: str, text: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)


@pytest.mark.parametrize("place", ["reference/training/losses.py", "protocontrast/bank.py"])
def test_code_that_computes_counts(root: Path, place: str):
    before = code_digest(root)
    written(root, place, "2")
    assert code_digest(root) != before


def test_code_that_prints_does_not(root: Path):
    before = code_digest(root)
    written(root, "reference/score.py", "2")
    assert code_digest(root) == before


@pytest.mark.parametrize("place", ["protocontrast/score.py", "reference/training/score.py"])
def test_a_file_of_the_same_name_elsewhere_counts(root: Path, place: str):
    before = code_digest(root)
    written(root, place, "1")
    with_it = code_digest(root)
    assert with_it != before
    written(root, place, "2")
    assert code_digest(root) not in (before, with_it)


def test_every_file_that_is_left_out_exists():
    here = Path(__file__).resolve().parents[2]
    assert [place for place in provenance._CANNOT_MATTER if not (here / place).is_file()] == []
    assert re.fullmatch("[0-9a-f]{12}", code_digest())
