"""The pictures of the documents are those that their scripts draw, and each is shown."""

import importlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from protocontrast import kernels
from tests.test_layers import ROOMS

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def draw_kernels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    import draw_kernels

    return draw_kernels


@pytest.fixture(params=["draw_how", "draw_front", "draw_curves"])
def of_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What draws the pictures of the pages that explain and of those that show measurements."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module(request.param)


@pytest.fixture
def draw_house(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS))
    import draw_house

    return draw_house


def test_the_stored_pictures_are_the_drawn_ones(
    draw_kernels: ModuleType, draw_house: ModuleType
) -> None:
    stored = {path.name: path.read_text("utf-8") for path in (DOCS / "pictures").iterdir()}
    drawn = draw_kernels.drawn() | draw_house.drawn()
    stale = [name for name, svg in drawn.items() if stored[name] != svg]
    assert not stale, f"draw again with docs/draw_*.py: {stale}"


def test_the_pictures_of_pages_are_the_drawn_ones_and_inside_their_frame(
    of_pages: ModuleType,
) -> None:
    for name, svg in of_pages.drawn().items():
        stale = f"draw again: python docs/{of_pages.__name__}.py"
        assert (DOCS / "pictures" / name).read_text("utf-8") == svg, stale
        inside(svg)


def test_every_stored_picture_is_shown() -> None:
    pages = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]
    text = "".join(page.read_text("utf-8") for page in pages)
    stored = {path.name for path in (DOCS / "pictures").iterdir()}
    assert stored == {*re.findall(r"!\[[^\]]+\]\([./a-z]*pictures/([a-z_]+\.svg)\)", text)}


def inside(svg: str) -> None:
    """A picture is well formed, and its boxes are inside of it."""
    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(box.get("x", 0)) + float(box.attrib["width"]) <= width
        assert float(box.get("y", 0)) + float(box.attrib["height"]) <= height


def test_every_picture_is_well_formed_and_inside_its_frame(
    draw_kernels: ModuleType, draw_house: ModuleType
) -> None:
    for svg in (draw_kernels.drawn() | draw_house.drawn()).values():
        inside(svg)


def test_every_picture_is_shown_and_every_kernel_has_a_section(draw_kernels: ModuleType) -> None:
    text = (DOCS / "kernels.md").read_text("utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(pictures/([a-z_]+\.svg)\)", text)
    assert sorted(shown) == sorted(draw_kernels.drawn())
    rooms = {path.name for path in Path(kernels.__file__).parent.glob("*.py")}
    named = set(re.findall(r"`([a-z_]+\.py)`", text))
    assert named <= rooms
    assert {f"{operator}.py" for operator in kernels.OPERATORS} <= named


def test_the_house_has_every_room_and_is_shown(
    draw_house: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert set(draw_house.ROOMS) == set(ROOMS)
    allowed = {(room, other) for room, others in ROOMS.items() for other in others}
    assert {(r, o) for r in ROOMS for o in draw_house.imported_by(r)} <= allowed
    assert draw_house.imported_by("functional") == {"calls", "checks", "ops"}
    text = (DOCS.parent / "CONTRIBUTING.md").read_text("utf-8")
    assert "](docs/pictures/house.svg)" in text
    monkeypatch.setattr(draw_house, "PACKAGE", tmp_path / "protocontrast")
    (tmp_path / "protocontrast" / "bank").mkdir(parents=True)
    (tmp_path / "protocontrast" / "bank" / "ema.py").write_text(
        "from protocontrast import checks\nfrom protocontrast.ops.rows import x\n\n" * 100
    )
    assert draw_house.imported_by("bank") == {"checks", "ops"}
    assert draw_house.size_of("bank") == "1 file, 300 lines"
