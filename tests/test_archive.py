"""What an index shows of a release, and that its source archive can be tested."""

import importlib
import re
import shutil
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

import protocontrast
from tests.test_packaging import PROJECT, run

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "https://example.org/protocontrast"
NOT_PACKED = shutil.ignore_patterns("__pycache__", "*.so", "*.so.*.new", "*.pyc", "*.egg-info")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("release")


def links(text: str) -> list[str]:
    """What leads out of a page: links and pictures."""
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("#")]


def test_an_index_shows_no_dead_link(release: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    found = links(release.description(readme, ADDRESS, "1.0"))
    assert f"{ADDRESS}/blob/v1.0/docs/start.md" in found
    assert f"{ADDRESS}/raw/v1.0/docs/pictures/gain.svg" in found
    assert len(found) == len(links(readme))
    assert [link for link in found if not link.startswith("https://")] == []
    without = release.description(readme, "", "1.0")
    assert [link for link in links(without) if not link.startswith("https://")] == []
    assert "Start in three minutes" in without


def test_a_description_from_a_readme(release: ModuleType) -> None:
    text = "![p](docs/p.svg)\n\nSee [a](b.md#c), [d](https://x.org) and [e](#f).\n"
    led = release.description(text, ADDRESS, "2")
    assert led == (
        f"![p]({ADDRESS}/raw/v2/docs/p.svg)\n\n"
        f"See [a]({ADDRESS}/blob/v2/b.md#c), [d](https://x.org) and [e](#f).\n"
    )
    assert release.description(text, "", "2") == "See a, [d](https://x.org) and [e](#f).\n"


def test_the_archive_holds_what_its_tests_need(release: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for room in release.ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=NOT_PACKED)
    for name in (*release.FILES, "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = ("-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(source))
    done = run(*build)
    assert done.returncode == 0, done.stderr
    name = f"protocontrast-{protocontrast.__version__}"
    with tarfile.open(tmp_path / f"{name}.tar.gz") as archive:
        packed = {Path(member.name).relative_to(name) for member in archive if member.isfile()}
        described = archive.extractfile(f"{name}/PKG-INFO").read().decode("utf-8")  # type: ignore[union-attr]
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    made = {path for path in files if "egg-info" in str(path)}
    assert files - made - packed == set()
    assert {str(path) for path in packed - files} <= {"PKG-INFO", "setup.cfg"}
    assert "Author: protocontrast developers" in described
    if "Repository" not in PROJECT["urls"]:
        assert "](docs/" not in described
