"""The pictures of docs/kernels.md are those that their script draws, and each is shown."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from protocontrast import kernels

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def draw_kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    import draw_kernels

    return draw_kernels


def test_the_stored_pictures_are_the_drawn_ones(draw_kernels: ModuleType) -> None:
    stored = {path.name: path.read_text("utf-8") for path in (DOCS / "pictures").iterdir()}
    # Of measurements; the tests of those draw them again.
    measured = {"scaling.svg", "benchmarks.svg", "methods.svg"}
    assert {name: svg for name, svg in stored.items() if name not in measured} == (
        draw_kernels.drawn()
    )


def test_every_picture_is_well_formed_and_inside_its_frame(draw_kernels: ModuleType) -> None:
    for svg in draw_kernels.drawn().values():
        root = ElementTree.fromstring(svg)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for box in root.iter("{http://www.w3.org/2000/svg}rect"):
            right = float(box.get("x", 0)) + float(box.attrib["width"])
            bottom = float(box.get("y", 0)) + float(box.attrib["height"])
            assert right <= width and bottom <= height


def test_every_picture_is_shown_and_every_kernel_has_a_section(draw_kernels: ModuleType) -> None:
    text = (DOCS / "kernels.md").read_text("utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(pictures/([a-z_]+\.svg)\)", text)
    assert sorted(shown) == sorted(draw_kernels.drawn())
    rooms = {path.name for path in Path(kernels.__file__).parent.glob("*.py")}
    named = set(re.findall(r"`([a-z_]+\.py)`", text))
    assert named <= rooms
    assert {f"{operator}.py" for operator in kernels.OPERATORS} <= named
