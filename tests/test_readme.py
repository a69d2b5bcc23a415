"""What the documents show is true: code runs, commands, links, names and equations exist."""

import ast
import doctest
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

import protocontrast

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EQUATIONS = {
    "maths.md": [f"M{i}" for i in (*range(1, 17), 18)],
    "pairs.md": ["M17"],
    "parts.md": [f"P{i}" for i in range(1, 13)],
    "distributions.md": [f"D{i}" for i in range(1, 8)],
}


def blocks(text: str, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Words of each shell command, in fenced blocks and in inline code."""
    joined = "\n".join(blocks(text, "bash")).replace("\\\n", "")
    lines = joined.splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`((?:make|python3?) [^`]+)`", prose)
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def unknown_commands(text: str, makefile: str) -> list[str]:
    """Named make targets and reference modules that do not exist."""
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    unknown = []
    for words in commands(text):
        program = Path(words[0]).name
        if program == "make":
            named = [w for w in words[1:] if "=" not in w]
            unknown += [f"make {target}" for target in named if target not in targets]
        elif program.startswith("python") and words[1:2] == ["-m"] and not _found(words[2]):
            unknown.append(f"python -m {words[2]}")
    return unknown


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def anchors(document: Path) -> set[str]:
    """What a link may name behind a #: the headings, in the form that they get."""
    prose = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(document: Path) -> list[str]:
    """Relative links of a document that lead to no file, or to no heading of it."""
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", document.read_text("utf-8"))
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        place = document.parent / path if path else document
        if re.match(r"[a-z]+:", link) or (place.exists() and not anchor):
            continue
        if not place.is_file() or anchor not in anchors(place):
            broken.append(link)
    return broken


def cited_equations(folder: Path) -> set[str]:
    sources = (path.read_text("utf-8") for path in folder.rglob("*.py"))
    return {cited for text in sources for cited in re.findall(r"\(([DMP]\d+)\)", text)}


@pytest.mark.parametrize("index", range(len(blocks(README.read_text("utf-8"), "python"))))
def test_readme_code_runs(index: int, capsys: pytest.CaptureFixture[str]) -> None:
    block = blocks(README.read_text("utf-8"), "python")[index]
    exec(compile(ast.parse(block), f"README block {index}", "exec"), {"__name__": "readme"})
    printed = re.findall(r"^print.*# -> (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == printed


def test_readme_has_code_and_fits() -> None:
    text = README.read_text("utf-8")
    assert blocks(text, "python")
    assert len(text.splitlines()) <= 120
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_commands_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert unknown_commands(document.read_text("utf-8"), makefile) == []


def test_readme_names_the_two_commands() -> None:
    named = commands(README.read_text("utf-8"))
    assert ["make", "demo"] in named
    assert ["make", "test"] in named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_doctests_in_documents(document: Path) -> None:
    failed, _ = doctest.testfile(str(document), module_relative=False)
    assert failed == 0


def test_the_table_of_equations_names_public_functions() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
    assert len(rows) >= 10
    assert [name for name in rows if name not in protocontrast.__all__] == []


@pytest.mark.parametrize("document", EQUATIONS)
def test_every_equation_has_one_heading(document: str) -> None:
    text = (ROOT / "docs" / document).read_text("utf-8")
    assert re.findall(r"^## \(([DMP]\d+)\)", text, re.MULTILINE) == EQUATIONS[document]


def test_cited_equations_exist() -> None:
    package = cited_equations(ROOT / "protocontrast")
    assert {"M1", "M3", "M6", "M12"} <= package
    assert set(EQUATIONS["parts.md"]) <= package
    assert package | cited_equations(ROOT / "reference") <= set().union(*EQUATIONS.values())


def test_an_unknown_command_is_found() -> None:
    text = "```bash\nmake tea  # hot\npython -m reference.nowhere\nmake test ARGS=-x\n```\n`make x`"
    found = unknown_commands(text, "test: stamp\n\trun\n")
    assert found == ["make tea", "python -m reference.nowhere", "make x"]


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    text = "# At the `top`\n[a](there.md) [b](here.md#at-the-top) [c](https://x.org) [d](#end)"
    (tmp_path / "here.md").write_text(text)
    assert broken_links(tmp_path / "here.md") == ["there.md", "#end"]


def test_a_cited_equation_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# (M99), (P98)\n")
    assert cited_equations(tmp_path) == {"M99", "P98"}
