"""The list in `reference/__init__.py` names every file and is an order in which to read them."""

import ast
import re
from pathlib import Path

import reference

FOLDER = Path(reference.__file__).parent


def _listed() -> list[str]:
    return re.findall(r"^ {4}(\w+) ", reference.__doc__ or "", flags=re.MULTILINE)


def _files() -> dict[str, list[Path]]:
    """Room -> its files; a folder is one room."""
    rooms = {path.stem: [path] for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    rooms |= {
        path.name: sorted(path.rglob("*.py"))
        for path in FOLDER.iterdir()
        if (path / "__init__.py").is_file()
    }
    return rooms


def _rooms_imported(path: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if parts == ["reference"]:
                rooms |= {alias.name for alias in node.names}
            elif parts[0] == "reference":
                rooms.add(parts[1])
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            rooms |= {name[1] for name in names if name[0] == "reference" and len(name) > 1}
    return rooms


def _backward(order: list[str], imports: dict[str, set[str]]) -> list[str]:
    """Imports that do not point to an earlier room."""
    place = {room: number for number, room in enumerate(order)}
    return [
        f"{room} imports {other}"
        for room in order
        for other in sorted(imports[room] - {room})
        if place[other] > place[room]
    ]


def test_every_file_is_listed_once() -> None:
    assert sorted(_listed()) == sorted(_files())


def test_imports_point_to_earlier_files() -> None:
    imports = {room: set().union(*map(_rooms_imported, paths)) for room, paths in _files().items()}
    assert imports["datasets"] == {"classes", "picture_files", "progress"}
    assert _backward(_listed(), imports) == []


def test_an_import_of_a_later_file_is_found() -> None:
    imports = {"first": {"second"}, "second": {"first", "second"}}
    assert _backward(["first", "second"], imports) == ["first imports second"]
