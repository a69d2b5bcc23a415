"""The lists in `reference/` and its rooms name every file, in an order in which to read them."""

import ast
import re
from pathlib import Path

import pytest

import reference

FOLDER = Path(reference.__file__).parent
# The scenes are parts of one drawing, which their own page explains.
LISTING = sorted(
    path.parent for path in FOLDER.rglob("__init__.py") if path.parent.name != "synthetic"
)


def _listed(folder: Path) -> list[str]:
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree, clean=False)
    return re.findall(r"^ {0,4}(\w+) {2,}", doc or "", flags=re.MULTILINE)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Name -> its files; a folder inside is one name."""
    files = {path.stem: [path] for path in folder.glob("*.py") if path.stem != "__init__"}
    return files | {
        path.name: sorted(path.rglob("*.py"))
        for path in folder.iterdir()
        if (path / "__init__.py").is_file()
    }


def _imported(path: Path, package: str) -> set[str]:
    """Names inside `package` that a file imports."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    inside = [
        name.removeprefix(f"{package}.") for name in modules if name.startswith(f"{package}.")
    ]
    return {name.split(".")[0] for name in inside}


def _imports(folder: Path) -> dict[str, set[str]]:
    package = ".".join(folder.relative_to(FOLDER.parent).parts)
    return {
        name: set().union(*(_imported(path, package) for path in paths))
        for name, paths in _files(folder).items()
    }


def _backward(order: list[str], imports: dict[str, set[str]]) -> list[str]:
    """Imports that do not point to an earlier name."""
    place = {name: number for number, name in enumerate(order)}
    return [
        f"{name} imports {other}"
        for name in order
        for other in sorted(imports[name] - {name})
        if place[other] > place[name]
    ]


@pytest.mark.parametrize("folder", LISTING, ids=lambda folder: folder.name)
def test_every_file_is_listed_once(folder: Path) -> None:
    assert sorted(_listed(folder)) == sorted(_files(folder))


@pytest.mark.parametrize("folder", LISTING, ids=lambda folder: folder.name)
def test_imports_point_to_earlier_files(folder: Path) -> None:
    assert _backward(_listed(folder), _imports(folder)) == []


def test_imports_are_seen() -> None:
    assert _imports(FOLDER / "data")["transforms"] >= {"arrays"}
    assert _imports(FOLDER)["training"] >= {"data", "networks"}


def test_an_import_of_a_later_file_is_found() -> None:
    imports = {"first": {"second"}, "second": {"first", "second"}}
    assert _backward(["first", "second"], imports) == ["first imports second"]
