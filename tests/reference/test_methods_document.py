"""docs/methods.md and its second part quote the files they explain, and leave no method out."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
from reference.methods.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "reference" / "methods"
TEXT = "\n".join(
    (ROOT / "docs" / name).read_text("utf-8") for name in ("methods.md", "methods_teacher.md")
)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))


def quoted(section: str) -> list[str]:
    """The Python blocks of a section."""
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)


def holds(source: str, block: str) -> bool:
    """Whether the lines of `block` stand one after another in `source`, however far indented."""
    lines, wanted = source.splitlines(), dedent(block).rstrip().splitlines()
    runs = (lines[i : i + len(wanted)] for i in range(len(lines) - len(wanted) + 1))
    return any(dedent("\n".join(run)).splitlines() == wanted for run in runs)


@pytest.mark.parametrize("title", [t for t in SECTIONS if "`reference/methods/" in SECTIONS[t]])
def test_code_is_quoted_as_it_stands(title: str) -> None:
    section = SECTIONS[title]
    sources = [
        (ROOT / path).read_text("utf-8")
        for path in re.findall(r"`(reference/methods/\w+\.py)`", section)
    ]
    blocks = quoted(section)
    assert blocks
    for block in blocks:
        assert any(holds(source, block) for source in sources), block


def test_a_changed_line_is_noticed() -> None:
    source = "class A:\n    x = 1\n    y = 2\n"
    assert holds(source, "x = 1\ny = 2\n")
    assert not holds(source, "x = 1\ny = 3\n")
    assert not holds(source, "x = 1\nz = 0\ny = 2\n")


def test_every_method_has_its_section_and_every_name_its_mention() -> None:
    named = set(re.findall(r"`reference/methods/(\w+)\.py`", TEXT))
    shared = {"__init__", "settings", "registry"}
    assert {path.stem for path in FOLDER.glob("*.py")} - shared <= named
    assert {name for name in METHODS if f"`{name}`" not in TEXT} == set()
