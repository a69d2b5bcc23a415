"""What a user installs: the wheel is the library and its types alone; dependencies are pinned."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import protocontrast
from protocontrast.native import build as native
from protocontrast.native import library

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {".py", ".typed", ".c", ".h"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built without a network from a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "docs/release.py"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    for room in ("protocontrast", "reference", "tests", "benchmarks"):
        for path in (ROOT / room).rglob("*"):
            if path.suffix in SOURCES:
                copy = source / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    return ZipFile(wheel_of(source, folder, **compiled_before(folder)))


def compiled_before(folder: Path) -> dict[str, str]:
    """Names a compiler that puts the library at hand wherever it is to write something.

    To compile it takes minutes, which the installation has spent.
    """
    if library.missing():
        return {}
    path = folder / "compiler"
    path.write_text(
        f'#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nexec cp "{library.PATH}" "$2"\n'
    )
    path.chmod(0o755)
    return {"CC": shlex.quote(str(path))}


def run(*command: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """A module of this Python, its output as text."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | environment,
    )


def wheel_of(source: Path, folder: Path, said: str = "", **environment: str) -> Path:
    """The path of the wheel of a source tree, built into a folder; the build says something."""
    command = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source))
    done = run(*command, **environment)
    if done.returncode:
        pytest.fail(f"the wheel does not build:\n{done.stdout}\n{done.stderr}")
    assert said in done.stderr
    (built,) = folder.glob("*.whl")
    return built


def metadata_file(wheel: ZipFile, ending: str) -> str:
    """The text of a file that describes the wheel."""
    (name,) = (n for n in wheel.namelist() if n.endswith(f".dist-info/{ending}"))
    return wheel.read(name).decode("utf-8")


@pytest.fixture(scope="module")
def wheel_metadata(wheel: ZipFile) -> Message:
    return Parser().parsestr(metadata_file(wheel, "METADATA"))


def pins(text: str) -> dict[str, list[Requirement]]:
    """Package -> its pins, one per environment marker."""
    table: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            table.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return table


def reachable(requirements: list[str]) -> set[str]:
    """Packages that `requirements` bring into this environment, followed to the end."""
    found: set[str] = set()
    queue = [(Requirement(text), "") for text in requirements]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            found.add(name)
            needs = metadata.requires(requirement.name) or []
            queue += [(Requirement(text), e) for text in needs for e in requirement.extras or [""]]
    return found


def test_wheel_holds_the_library_alone(wheel: ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"protocontrast", f"protocontrast-{protocontrast.__version__}.dist-info"}


def test_wheel_holds_every_module_the_c_sources_and_what_was_compiled(wheel: ZipFile) -> None:
    sources = (p for p in (ROOT / "protocontrast").rglob("*") if p.suffix in SOURCES)
    expected = {str(path.relative_to(ROOT)) for path in sources}
    if native.compiler():
        expected.add(f"protocontrast/native/{native.LIBRARY}")
    packed = {name for name in wheel.namelist() if name.startswith("protocontrast/")}
    assert "protocontrast/py.typed" in packed
    assert packed == expected


def test_wheel_is_of_a_platform_and_of_no_python(wheel: ZipFile) -> None:
    name = Path(str(wheel.filename)).name
    assert name.startswith(f"protocontrast-{protocontrast.__version__}-py3-none-")
    assert name.endswith("-any.whl") != bool(native.compiler())


ON_LINUX = pytest.mark.skipif(
    not (sys.platform == "linux" and native.compiler()), reason="expected Linux and a C compiler"
)


@ON_LINUX
def test_the_library_needs_the_c_library_alone(wheel: ZipFile, tmp_path: Path) -> None:
    """So a Linux wheel has nothing to bundle, and the oldest system is the one it is built on."""
    assert "Root-Is-Purelib: false" in metadata_file(wheel, "WHEEL")
    packed = wheel.extract(f"protocontrast/native/{native.LIBRARY}", tmp_path)
    done = subprocess.run(["readelf", "-d", packed], capture_output=True, text=True, check=True)
    needed = re.findall(r"NEEDED.*\[(.+)\]", done.stdout)
    assert {name.split(".")[0].split("-")[0] for name in needed} <= {
        "libc",
        "libm",
        "libpthread",
        "ld",
    }
    assert "libc.so.6" in needed
    assert not re.search("RPATH|RUNPATH", done.stdout)


@ON_LINUX
@pytest.mark.skipif(
    not importlib.util.find_spec("auditwheel"), reason="expected auditwheel: make wheel installs it"
)
def test_auditwheel_names_a_manylinux(wheel: ZipFile) -> None:
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel.filename)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search('platform tag: "manylinux_2_[0-9]+_', " ".join(done.stdout.split()))


def test_wheel_without_a_compiler_is_of_every_platform(wheel: ZipFile, tmp_path: Path) -> None:
    source = Path(str(wheel.filename)).parent / "source"
    shutil.rmtree(source / "build")
    said = 'protocontrast: installing without backend="native": expected a C compiler'
    built = wheel_of(source, tmp_path, said, CC="/no/compiler")
    assert built.name.endswith("-py3-none-any.whl")
    assert not [name for name in ZipFile(built).namelist() if name.endswith(native.LIBRARY)]


def test_wheel_metadata(wheel_metadata: Message) -> None:
    assert wheel_metadata["Name"] == "protocontrast"
    assert wheel_metadata["Requires-Python"] == ">=3.10"
    assert wheel_metadata["License-Expression"] == "Apache-2.0"
    extras = set(wheel_metadata.get_all("Provides-Extra", []))
    optional = {"backbones", "lite", "onnx", "docs", "integrations"}
    assert extras == {"triton", "reference", "dev", "bench"} | optional


def test_core_needs_torch_and_einops_only(wheel_metadata: Message) -> None:
    required = [Requirement(text) for text in wheel_metadata.get_all("Requires-Dist", [])]
    core = {r.name for r in required if "extra" not in str(r.marker)}
    assert core == {"torch", "einops"}


def test_version_is_written_once_and_agrees() -> None:
    assert PROJECT["dynamic"] == ["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    (newest, *_) = re.findall(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", changelog, re.MULTILINE)
    assert newest == protocontrast.__version__
    for name in ("README.md", "CITATION.cff", "pyproject.toml"):
        assert newest not in (ROOT / name).read_text("utf-8")


def test_every_installed_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = reachable(
        PROJECT["dependencies"] + extras["reference"] + extras["triton"] + extras["dev"]
    )
    # torch names the versions of its own CUDA packages exactly.
    needed = {name for name in needed if not name.startswith(("nvidia-", "cuda-"))}
    # What builds the site need not be installed here, so what it brings along is not followed.
    needed |= {canonicalize_name(Requirement(text).name) for text in extras["docs"]}
    table = pins((ROOT / "constraints.txt").read_text("utf-8"))
    assert needed - set(table) == set()
    assert {"torch", "triton", "numpy", "pytest", "markupsafe"} <= set(table)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_pins_are_exact_and_unique_for_every_python(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for name, requirements in pins((ROOT / "constraints.txt").read_text("utf-8")).items():
        meant = [r for r in requirements if not r.marker or r.marker.evaluate(environment)]
        assert len(meant) == 1, f"{name} has {len(meant)} pins on Python {python}"
        assert [s.operator for s in meant[0].specifier] == ["=="], name


def test_a_missing_pin_is_found() -> None:
    assert {"jinja2", "markupsafe"} <= reachable(["jinja2>=3"])
    assert reachable(["jinja2>=3; python_version < '3'"]) == set()
    assert set(pins("# note\njinja2==3.1.6\n")) == {"jinja2"}


PROGRAM = """\
import torch
from torch import Tensor
from typing_extensions import assert_type

import protocontrast as pc

rows, labels = torch.eye(2), torch.tensor([0, 1])
maps, grid, rated = rows[None, :, None], labels[None, None], pc.PixelPrototypeContrastLoss()
bicl = pc.BiCL(2, 2)
out = bicl(maps, grid, maps, update=False)
assert_type(out, pc.BiCLOutput)
assert_type(out.loss, Tensor)
assert_type(rated(rows, labels, rows), Tensor)
assert_type(pc.PairContrastLoss()(rows, labels), Tensor)
assert_type(pc.UpsampledCrossEntropyLoss()(maps, grid), Tensor)
assert_type(pc.BidirectionalContrastLoss(2)(maps, grid, maps, grid), pc.BidirectionalContrast)
assert_type(pc.LogitBalance(2)(maps, grid), Tensor)
bicl.temperature = 0.2
print(out.sum)  # wrong
bicl(maps, grid)  # wrong
bicl(maps, grid, maps, update="no")  # wrong
rated(rows, labels, rows, weight=rows)  # wrong
"""
WRONG = [n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")]
CHECKERS = {
    "mypy": ("--strict", "--cache-dir", "../mypy", "--python-executable"),
    "pyright": ("--pythonpath",),
}


@pytest.fixture(scope="module")
def installed(
    request: pytest.FixtureRequest, wheel: ZipFile, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A Python that finds the installed library, and this one's packages."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("[lL]ib/**/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if request.param == "editable":
        code = f"from setuptools import build_meta as b; b.build_editable({str(folder)!r})"
        done = run("-c", code, cwd=Path(str(wheel.filename)).parent / "source", CC="/no/compiler")
        if done.returncode:
            pytest.fail(f"the library does not install:\n{done.stdout}\n{done.stderr}")
        wheel = ZipFile(*folder.glob("*.whl"))
    wheel.extractall(site)
    return folder / "bin" / "python"


@pytest.mark.timeout(900)  # mypy reads torch anew, which takes minutes on a busy machine
@pytest.mark.parametrize(
    ("installed", "checker"),
    [
        ("wheel", "mypy"),
        ("editable", "pyright"),
        pytest.param("wheel", "pyright", marks=pytest.mark.slow),
        pytest.param("editable", "mypy", marks=pytest.mark.slow),
    ],
    indirect=["installed"],
)
def test_calls_of_modules_have_types(checker: str, installed: Path) -> None:
    if not importlib.util.find_spec(checker):
        pytest.skip(f"{checker} is not installed")
    program = installed.parents[1] / "program.py"
    program.write_text(PROGRAM)
    done = run(
        "-m", checker, *CHECKERS[checker], str(installed), program.name, cwd=program.parent,
        PYRIGHT_PYTHON_IGNORE_WARNINGS="1",
    )  # fmt: skip
    reported = re.findall(r"program\.py:(\d+)(?::\d+)?(?: -|:) error", done.stdout)
    assert sorted({*map(int, reported)}) == WRONG, done.stdout + done.stderr
