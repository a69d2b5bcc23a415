"""Two commits beside each other: the table, the refusal, and a whole small run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import commits

ROOT = Path(__file__).resolve().parents[1]


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_table_has_medians_over_all_rounds_and_their_ratio() -> None:
    base = [{"contrast": [8.0, 8.0]}, {"contrast": [6.0, 80.0]}]
    own = [{"contrast": [2.0, 4.0]}, {"contrast": [4.0, 4.0]}]
    assert commits.comparison(base, own).splitlines()[-1] == "| contrast | 8.00 | 4.00 | 2.00x |"


def test_what_is_no_commit_is_refused() -> None:
    sentence = (
        "bench-compare: expected BASE to be a commit, got 'nowhere'. Hint: git log shows some."
    )
    with (
        pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"),
        commits.tree_of("nowhere"),
    ):
        pass


def test_the_checkout_holds_the_other_library_and_these_benchmarks() -> None:
    before = git("worktree", "list")
    with commits.tree_of("HEAD") as tree:
        here = ROOT / "benchmarks" / "commits.py"
        assert (tree / "benchmarks" / "commits.py").read_text() == here.read_text()
        assert (tree / "protocontrast" / "checks.py").read_text() == git(
            "show", "HEAD:protocontrast/checks.py"
        )
    assert not tree.exists()
    assert git("worktree", "list") == before


@pytest.mark.slow
def test_a_small_run_compares_with_the_last_commit() -> None:
    command = [sys.executable, "-m", "benchmarks.commits", "HEAD", "--rounds", "1"]
    command += ["--repetitions", "1", "--size", "6x8", "--operators", "transfer_labels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "| case | base, ms | this tree, ms | speed-up |"
    assert len(lines) == 2 + 2  # two numbers of channels
