"""Imports in `reference/` point down, and each room knows only what the table lets it know."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import reference

ROOT = Path(reference.__file__).resolve().parent
# Room -> rooms that its files import when they are imported; more is read where it is needed.
ROOMS: dict[str, set[str]] = {
    "data": set(),
    "networks": {"data", "run"},
    "settings": {"data", "networks"},
    "presets": {"data", "networks", "settings"},
    "method": {"data", "networks", "run", "settings"},
    "contrast_shares": {"data", "method"},
    "dynamic_labels": {"data", "method", "networks", "settings"},
    "bicl": {"contrast_shares", "dynamic_labels", "method", "networks", "run", "settings"},
    "methods": {"bicl", "contrast_shares", "data", "method", "networks", "run"},
    "run": {"data", "method", "methods", "networks", "pictures", "settings", "synthetic"},
    "static_labels": {"data", "networks", "run", "settings"},
    "evaluation": {"commands", "data", "networks", "run", "settings"},
    "train": {
        "commands", "data", "evaluation", "method", "presets", "run", "settings", "static_labels",
    },
    "synthetic": {"commands", "data", "run"},
    "experiments": {"data", "methods", "presets", "run", "settings"},
    "pictures": {"data", "experiments", "networks", "presets", "run"},
}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """Modules of `reference` that a file imports when it is imported, as dotted names."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reference"):
            inside = f"{node.module}.{node.names[0].name}".split(".")
            yield from ({f"{node.module}", ".".join(inside)} - {"reference"})
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("reference."))


def files() -> dict[str, Path]:
    """Dotted name -> file."""
    named = {}
    for path in ROOT.rglob("*.py"):
        parts = ("reference", *path.relative_to(ROOT).with_suffix("").parts)
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def test_rooms_import_what_the_table_says() -> None:
    outside = []
    for name, path in files().items():
        room = name.split(".")[1] if "." in name else ""
        known = ROOMS.get(room)
        for other in imported(path):
            if known is not None and other.split(".")[1] not in known | {room}:
                outside.append(f"{name} imports {other}")
    assert outside == []


def test_no_file_is_imported_by_what_it_imports() -> None:
    named = files()
    imports = {n: {o for o in imported(p) if o in named} - {n} for n, p in named.items()}
    assert "reference.run.ranks" in imports["reference.train"]
    TopologicalSorter(imports).prepare()
    imports["reference.run.ranks"].add("reference.train")
    with pytest.raises(CycleError):
        TopologicalSorter(imports).prepare()
