"""The site's pages: each is in the navigation, every public name has its place, their code runs."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import protocontrast
from benchmarks.operators import LIBRARY
from tests.test_readme import blocks

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {
    str(path.relative_to(DOCS).with_suffix(""))
    for pattern in ("*.md", "notebooks/*.ipynb")
    for path in DOCS.rglob(pattern)
}
# Every block of these runs, in order, as a reader would paste it.
RUN = ["start", "choose", "how", "faq", *sorted(p for p in PAGES if p.startswith("guides/"))]
# Points by which what is printed may differ between machines.
NEAR = 12


def entries(page: Path) -> list[str]:
    """What the navigation of a page leads to, in reading order."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    lines = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    return [re.sub(r".*<(.+)>$", r"\1", line) for line in lines]


def documented() -> list[str]:
    """Names whose docstrings the pages about the API show."""
    text = "".join(page.read_text("utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    return re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text, re.MULTILINE)


def near(printed: str, expected: str) -> bool:
    """Whether two lines have the same words, and numbers that are near to each other."""
    number = r"-?\d+(?:\.\d+)?"
    pairs = zip(re.findall(number, printed), re.findall(number, expected), strict=False)
    same = re.sub(number, "n", printed) == re.sub(number, "n", expected)
    return same and all(abs(float(a) - float(b)) <= NEAR for a, b in pairs)


def test_every_page_is_in_the_navigation_once() -> None:
    led_to = ["index", *entries(DOCS / "index.md"), *entries(DOCS / "api.md")]
    assert sorted(led_to) == sorted(PAGES)


def test_every_public_name_is_documented_once() -> None:
    assert sorted(documented()) == sorted(protocontrast.__all__)


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "page"}
    code = blocks((DOCS / f"{page}.md").read_text("utf-8"), "python")
    for index, block in enumerate(code):
        exec(compile(block, f"{page}, block {index}", "exec"), names)
    expected = re.findall(r"# -> (.*)$", "\n".join(code), re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(expected)
    assert [line for line in zip(printed, expected, strict=True) if not near(*line)] == []


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    import outside

    return outside


def test_links_out_of_the_pages(outside: ModuleType, tmp_path: Path) -> None:
    for folder in ("docs/guides", "code"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "code" / "a.py").touch()
    page = tmp_path / "docs" / "guides" / "page.md"
    text = "[a](../../code/a.py) [b](../../code) [c](../x.md) [d](../../none.py) ![e](../p.svg)"
    kept = "[c](../x.md) [d](../../none.py) ![e](../p.svg)"
    (tmp_path / "docs" / "x.md").touch()
    text += " [f](../guides) [g](#h) [i](https://x.org)"
    led = outside.led_outside(text, page, tmp_path, "")
    rest = "[g](#h) [i](https://x.org)"
    assert led == f"[a](../../code/a.py) b {kept} f {rest}"
    led = outside.led_outside(text, page, tmp_path, "https://x.org/p")
    here = "https://x.org/p"
    links = f"[a]({here}/blob/main/code/a.py) [b]({here}/tree/main/code) {kept}"
    assert led == f"{links} [f]({here}/tree/main/docs/guides) {rest}"
    # As in a notebook, whose text is escaped: looked through at once, not in every way there is.
    escaped = "[" + r"\n" * 4000
    assert outside.led_outside(escaped, page, tmp_path, "") == escaped
    (tmp_path / "READ.md").write_text("[a](docs/b.md) [c](code/a.py) [d](#e) [f](https://g.org)")
    included = outside.included("```{include} ../READ.md\n```\n", tmp_path)
    assert included == "[a](b.md) [c](../code/a.py) [d](#e) [f](https://g.org)\n"


def test_docstrings_become_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "extensions"))
    import docstrings

    lines = [
        "Sums.",
        "",
        "    a = b,",
        "    c",
        "",
        "Args:",
        "    dim: D.",
        "",
        "See docs/maths.md.",
    ]
    assert docstrings.prepared(lines) == [
        *("Sums.", "", "::", "", "    a = b,", "    c", ""),
        *("Args:", "    dim: \\D.", "", "See :doc:`docs/maths.md </maths>`."),
    ]


def test_memory_by_shape_is_computed_and_is_what_was_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import memory_table

    page = memory_table.PAGE.read_text("utf-8")
    assert memory_table.written(page) == page
    assert memory_table.written(page.replace("4.9 MiB", "5 MiB")) == page
    results = DOCS.parent / "benchmarks" / "results" / "cpu.json"
    elements = {"float32": 4, "bfloat16": 2}
    held = 0
    for row in json.loads(results.read_text("utf-8"))["rows"]:
        asked = row["contender"], row["operator"], row["allocator"]
        if asked not in {(LIBRARY, name, "default") for name in ("contrast", "BiCL step")}:
            continue
        size = (2, row["channels"], *row["size"])
        shape = memory_table.Shape(size, elements[row["dtype"]], row["classes"])
        told = shape.contrast if row["operator"] == "contrast" else shape.bicl
        # A peak of resident memory leaves out what fits into pages that the process already has.
        assert told / memory_table.MIB == pytest.approx(row["peak_mib"], rel=0.05, abs=0.5), row
        held += 1
    assert held >= 10


def test_what_a_guide_says_of_its_curves() -> None:
    stored = json.loads((DOCS / "results" / "curves.json").read_text("utf-8"))
    ((_, sure, _),) = (point for point in stored["confidence"] if point[0] == 0.8)
    ((_, near, right),) = (point for point in stored["similarity"] if point[0] == 0.8)
    page = (DOCS / "guides" / "temperature.md").read_text("utf-8")
    assert f"labels {sure:.0f} % of the pixels here" in page
    assert f"labels {near:.0f} %, of which {right:.0f} % are right" in page
    assert f"{stored['images']} images" in page


def test_a_page_that_is_left_out_and_a_far_number_are_found(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("```{toctree}\n:hidden:\n\nA <a>\nb/c\n```\n")
    assert entries(tmp_path / "index.md") == ["a", "b/c"]
    assert near("by day 40 %", "by day 44 %")
    assert not near("by day 40 %", "by day 60 %")
    assert not near("by day 40 %", "at night 40 %")
