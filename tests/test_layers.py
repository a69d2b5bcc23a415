"""Imports point down: the table below is the architecture, and no module may step outside it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import protocontrast
from protocontrast import functional

ROOT = Path(__file__).resolve().parents[1]

# room -> what its modules may import: other rooms, and packages beside the standard library.
ROOMS: dict[str, set[str]] = {
    "calls": set(),
    "naive": {"calls"},
    "eager": {"calls"},
    "kernels": {"calls"},
    "native": {"calls"},
    "checks": set(),
    "module": {"checks"},
    "ops": {"calls", "naive", "eager", "kernels", "native", "checks"},
    "functional": {"calls", "ops", "checks"},
    "losses": {"functional", "checks", "module"},
    "bank": {"functional", "checks", "module"},
    "bicl": {"calls", "functional", "losses", "bank", "checks", "module"},
    "__init__": {"functional", "losses", "bank", "bicl"},
}
PACKAGES: dict[str, set[str]] = {room: {"torch"} for room in ROOMS} | {
    "naive": {"torch", "einops"},
    "kernels": {"torch", "triton"},
    "native": {"torch", "setuptools"},  # in the commands that build it
    "functional": {"torch", "einops"},
}
# One finds rows for the table of tiles, and so has to know the table; the other times what of a
# call is spent in C, and compiles a loop as the library is compiled.
MAY_LOOK_INSIDE = {"benchmarks/tune.py", "benchmarks/limits.py"}
PUBLIC = {
    "protocontrast": frozenset(protocontrast.__all__) | {"functional", "__version__"},
    "protocontrast.functional": frozenset(functional.__all__),
}


def imports(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, str, str | None]]:
    """Line, module and name (None for a whole module) of each import, relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            yield node.lineno, _literal(node), None


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in {"import_module", "__import__"}


def _literal(node: ast.Call) -> str:
    first = node.args[0] if node.args else None
    return str(first.value) if isinstance(first, ast.Constant) else "<computed>"


def layer_faults(package: Path) -> list[str]:
    """Imports in the folder `package` that the table does not allow."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        where, room = path.relative_to(package), parts[0]
        if room not in ROOMS:
            faults.append(f"{where}: room {room} is not in the table")
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for line, module, name in imports(tree, (package.name, *parts[:-1])):
            head, *rest = module.split(".")
            if head != package.name:
                allowed = head in PACKAGES[room] or head in sys.stdlib_module_names
                used = head
            else:
                used = rest[0] if rest else name or package.name
                allowed = used == room or used in ROOMS[room]
            if not allowed:
                faults.append(f"{where}:{line}: {room} imports {used}")
    return faults


def private_uses(folder: Path) -> list[str]:
    """Uses of anything but public names of the library in the scripts below `folder`."""
    faults = []
    for path in sorted(folder.rglob("*.py")):
        if path.relative_to(folder.parent).as_posix() in MAY_LOOK_INSIDE:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        package = (folder.name, *path.relative_to(folder).with_suffix("").parts[:-1])
        for line, module, name in imports(tree, package):
            if module.split(".")[0] != "protocontrast":
                continue
            if module not in PUBLIC or (name is not None and name not in PUBLIC[module]):
                faults.append(f"{path.name}:{line}: {module}{'.' + name if name else ''}")
        faults += [f"{path.name}:{line}: {use}" for line, use in _private_attributes(tree)]
    return faults


def _private_attributes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    aliases = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in PUBLIC
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in aliases:
            module = aliases[ast.unparse(node.value)]
            if node.attr not in PUBLIC[module]:
                yield node.lineno, f"{module}.{node.attr}"


def test_imports_point_down() -> None:
    assert layer_faults(ROOT / "protocontrast") == []


def test_every_room_of_the_table_exists() -> None:
    package = ROOT / "protocontrast"
    missing = [r for r in ROOMS if not ((package / f"{r}.py").is_file() or (package / r).is_dir())]
    assert missing == []


@pytest.mark.parametrize("folder", ["reference", "benchmarks"])
def test_users_of_the_library_import_public_names_only(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert private_uses(ROOT / folder) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("naive.py", "from protocontrast.eager import tiles", "naive imports eager"),
        ("eager/contrast.py", "from einops import rearrange", "eager imports einops"),
        ("eager/contrast.py", "from ..naive import prototypes", "eager imports naive"),
        ("native/contrast.py", "from protocontrast.eager import tiles", "native imports eager"),
        ("native/calls.py", "import numpy", "native imports numpy"),
        ("checks.py", "import numpy", "checks imports numpy"),
        ("functional/contrast.py", "from protocontrast import eager", "functional imports eager"),
        ("losses.py", "from .bank import PrototypeBank", "losses imports bank"),
        ("bank/ema.py", "from ..losses import X", "bank imports losses"),
        ("ops/contrast.py", "import protocontrast", "ops imports protocontrast"),
        ("ops/contrast.py", "from .. import functional", "ops imports functional"),
        ("bicl.py", "def f():\n    import protocontrast.ops", "bicl imports ops"),
        ("bicl.py", "import_module('protocontrast.ops')", "bicl imports ops"),
        ("bicl.py", "import_module(name)", "bicl imports <computed>"),
    ],
)
def test_a_step_outside_the_table_is_found(
    tmp_path: Path, file: str, line: str, fault: str
) -> None:
    path = tmp_path / "protocontrast" / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    found = layer_faults(tmp_path / "protocontrast")
    assert len(found) == 1
    assert found[0].endswith(fault)


def test_a_room_outside_the_table_is_found(tmp_path: Path) -> None:
    (tmp_path / "attic.py").write_text("import torch\n")
    assert layer_faults(tmp_path) == ["attic.py: room attic is not in the table"]


def test_steps_inside_the_table_pass(tmp_path: Path) -> None:
    package = tmp_path / "protocontrast"
    (package / "bank").mkdir(parents=True)
    (package / "naive.py").write_text("import math\nimport torch\nfrom einops import reduce\n")
    (package / "bank" / "ema.py").write_text(
        "from .rules import ema\nfrom ..functional import class_prototypes\n"
        "from protocontrast.checks import expect\n"
    )
    assert layer_faults(package) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("from protocontrast.eager import tiles", "protocontrast.eager.tiles"),
        ("from protocontrast import naive", "protocontrast.naive"),
        ("import protocontrast.ops", "protocontrast.ops"),
        ("import protocontrast as pc\npc.naive", "protocontrast.naive"),
        ("import protocontrast.functional as f\nf._reduce", "protocontrast.functional._reduce"),
    ],
)
def test_a_private_name_is_found(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "script.py").write_text(line + "\n")
    found = private_uses(tmp_path)
    assert len(found) == 1
    assert found[0].endswith(fault)


def test_public_names_pass(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import protocontrast as pc\nfrom protocontrast.functional import class_prototypes\n"
        "pc.functional.fuse_labels\npc.BiCL\n"
    )
    assert private_uses(tmp_path) == []
