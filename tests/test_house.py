"""House rules: short files, honest names, no assert in shipped code, no host synchronisation."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 400
TEXT = {".py", ".c", ".h", ".md", ".toml", ".txt", ".html", ".j2", ".css"}
NOT_OURS = {"build", "dist", "runs", "__pycache__"}
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "misc", "common"}
# Each of these makes the host wait for the device, or returns a shape that depends on values.
SYNCHRONISING = {"item", "tolist", "nonzero", "argwhere", "masked_select", "equal"}
MANY_ARGUMENTS = 8
# Users name the settings that they change; behind these rooms a call is one named tuple.
PUBLIC = {"functional", "losses", "bank", "bicl"}
# naive is read with the paper open, not run for speed; checks reads values by its contract.
MAY_SYNCHRONISE = {"naive", "checks"}


def house_files(root: Path) -> Iterator[Path]:
    """Every text file of the house below `root`, without hidden folders and build outputs."""
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name in NOT_OURS or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from house_files(path)
        elif path.suffix in TEXT or path.name == "Makefile":
            yield path


def long_files(root: Path) -> list[str]:
    # Prose may be as long as it takes to explain.
    code = (path for path in house_files(root) if path.suffix != ".md")
    counts = {path: len(path.read_text("utf-8").splitlines()) for path in code}
    return [f"{path.relative_to(root)}: {n} lines" for path, n in counts.items() if n > MAX_LINES]


def empty_names(root: Path) -> list[str]:
    relative = (path.relative_to(root) for path in house_files(root))
    return [str(path) for path in relative if EMPTY_NAMES & _words(path)]


def _words(path: Path) -> set[str]:
    return {word for part in path.with_suffix("").parts for word in part.lower().split("_")}


def assertions(folder: Path) -> list[str]:
    return [
        f"{path.name}:{node.lineno}"
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assert)
    ]


def synchronisations(package: Path) -> list[str]:
    """Calls in `package` that wait for the device, outside the rooms that may."""
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        if where.with_suffix("").parts[0] in MAY_SYNCHRONISE:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in SYNCHRONISING:
                found.append(f"{path.relative_to(package)}:{node.lineno} .{node.attr}")
    return found


def long_signatures(package: Path) -> list[str]:
    """Definitions with many arguments, outside the public rooms."""
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        if where.with_suffix("").parts[0] in PUBLIC:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                arguments = node.args
                count = sum(map(len, (arguments.posonlyargs, arguments.args, arguments.kwonlyargs)))
                if count >= MANY_ARGUMENTS:
                    found.append(f"{where}: {getattr(node, 'name', 'lambda')} takes {count}")
    return found


def test_no_file_is_long() -> None:
    assert long_files(ROOT) == []


def test_no_name_is_empty() -> None:
    assert empty_names(ROOT) == []


@pytest.mark.parametrize("folder", ["protocontrast", "reference"])
def test_shipped_code_raises_and_never_asserts(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert assertions(ROOT / folder) == []


def test_package_never_waits_for_the_device() -> None:
    assert synchronisations(ROOT / "protocontrast") == []


def test_arguments_are_few() -> None:
    # The declaration of an operator, by name.
    assert long_signatures(ROOT / "protocontrast") == ["ops/operator.py: __init__ takes 17"]


def test_the_walk_sees_this_house() -> None:
    seen = {str(path.relative_to(ROOT)) for path in house_files(ROOT)}
    assert {"Makefile", "README.md", "protocontrast/__init__.py", "tests/test_house.py"} <= seen


def test_a_long_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "fits.py").write_text("x = 1\n" * MAX_LINES)
    (tmp_path / "long.py").write_text("x = 1\n" * (MAX_LINES + 1))
    assert long_files(tmp_path) == [f"long.py: {MAX_LINES + 1} lines"]


def test_an_empty_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "misc").mkdir()
    for name in ("misc/sums.py", "test_utils.py", "commonest.py"):
        (tmp_path / name).touch()
    assert sorted(empty_names(tmp_path)) == ["misc/sums.py", "test_utils.py"]


def test_an_assertion_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(x):\n    assert x > 0\n    return x\n")
    assert assertions(tmp_path) == ["a.py:2"]


def test_a_long_signature_is_found(tmp_path: Path) -> None:
    names = ", ".join("abcdefg")
    for folder in ("functional", "kernels"):
        (tmp_path / folder).mkdir()
        lines = f"def f({names}): ...\ndef g({names}, *, h): ...\n"
        (tmp_path / folder / "sums.py").write_text(lines)
    assert long_signatures(tmp_path) == ["kernels/sums.py: g takes 8"]


@pytest.mark.parametrize(
    "line", ["x.item()", "torch.nonzero(x)", "x.nonzero()", "torch.equal(x, y)", "x.tolist()"]
)
def test_a_synchronisation_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "checks").mkdir()
    for name in ("losses.py", "naive.py", "checks/labels.py"):
        (tmp_path / name).write_text(f"value = {line}\n")
    found = synchronisations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith("losses.py:1 .")
