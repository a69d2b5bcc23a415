"""Recipes of docs/extending.md for other packages, as far as they show without them.

`make test-integrations` trains each in its package (tests/integrations/).
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import protocontrast
from tests.extending_blocks import BLOCKS, DOCUMENT, IN_PACKAGES
from tests.integrations import packages

ROOT = Path(__file__).resolve().parents[1]
INTEGRATIONS = ROOT / "tests" / "integrations"


def calls_of(block: str) -> Iterator[tuple[str, ast.Call]]:
    """Every `pc.name(...)` of a block."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("pc."):
            yield ast.unparse(node.func).removeprefix("pc."), node


def misnamed(block: str) -> list[str]:
    """Names that the library lacks, calls that do not fit it, and what ruff finds undefined."""
    found = []
    for name, call in calls_of(block):
        given = [None] * len(call.args), {word.arg or "": None for word in call.keywords}
        try:
            function = getattr(protocontrast, name)
            starred = any(isinstance(arg, ast.Starred) for arg in call.args) or "" in given[1]
            signature = inspect.signature(function)
            (signature.bind_partial if starred else signature.bind)(
                *given[0], **{word: None for word in given[1] if word}
            )
        except (AttributeError, TypeError) as error:
            found.append(f"pc.{name}: {error}")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", "-"]
    done = subprocess.run(command, input=block, capture_output=True, text=True, check=False)
    return found + ([done.stdout] if done.returncode else [])


@pytest.mark.parametrize("heading", IN_PACKAGES)
def test_the_names_of_a_recipe(heading: str) -> None:
    assert misnamed("\n".join(BLOCKS[heading])) == []


@pytest.mark.parametrize("heading", IN_PACKAGES)
def test_a_recipe_is_run_in_its_package(heading: str) -> None:
    name = IN_PACKAGES[heading]
    paths = (INTEGRATIONS / f"{kind}_{name}.py" for kind in ("test", "on"))
    texts = [path.read_text("utf-8") for path in paths if path.exists()]
    assert any(f'run("{heading}")' in text for text in texts)


@pytest.mark.parametrize(
    "block", ["pc.none(1)", "pc.entropy()", "pc.PrototypeBank(2, 3, width=4)", "import os", "x + 1"]
)
def test_a_wrong_name_is_found(block: str) -> None:
    assert len(misnamed(f"import protocontrast as pc\n{block}\npc.entropy(*())")) == 1


def test_the_versions_of_the_document_are_those_installed() -> None:
    text = DOCUMENT.read_text("utf-8").replace("\n", " ")
    pinned = "\n".join(path.read_text("utf-8") for path in INTEGRATIONS.glob("*.txt"))
    named = re.findall(
        r"([a-z-]+) (\d+\.\d+\.\d+)[,. )]",
        text.partition("trains each recipe")[2].partition("###")[0],
    )
    assert len(named) == 10
    for name, version in named:
        assert f"{name}=={version}" in pinned.splitlines()


def test_without_the_packages_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    without = (
        f"import sys; sys.modules.update(dict.fromkeys({packages.NAMES}))\n"
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [
        sys.executable, "-c", without, "-c", "tests/integrations/pytest.ini", "--rootdir=.",
        "tests/integrations", "-q", "-p", "no:cacheprovider",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *_, line, totals = done.stdout.strip().splitlines()
    for name in packages.NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    assert line == packages.missing()
    assert all(f"{name}," in line or f"{name}." in line for name in packages.NAMES)
    assert " skipped" in totals
    assert not any(word in totals for word in ("passed", "failed", "error"))
