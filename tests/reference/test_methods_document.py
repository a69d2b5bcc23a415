"""docs/methods.md and its second part have a section for every method, and leave no file out."""

import re
from pathlib import Path

from reference.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "reference" / "methods"
TEXT = "\n".join(
    (ROOT / "docs" / name).read_text("utf-8") for name in ("methods.md", "methods_teacher.md")
)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))


def test_every_file_is_named_and_every_named_file_is_there() -> None:
    named = {*re.findall(r"`reference/methods/(\w+)\.py`", TEXT)}
    assert named == {path.stem for path in FOLDER.glob("*.py")}


def test_every_method_has_a_section_with_a_formula_and_departures() -> None:
    for name in METHODS.keys() - {"control"}:
        (section,) = (
            text
            for text in SECTIONS.values()
            if re.search(rf"^`.*`{name}`|^`{name}`", text.strip())
        )
        assert "```math" in section
        assert name == "bicl_dacs" or "departs" in section


def test_options_that_are_named_are_there() -> None:
    source = "\n".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    options = re.findall(r"`(\w+)=[\w.\"]+`(?! of)", TEXT)
    assert len(options) >= 6
    assert [option for option in options if f"{option}:" not in source] == []
