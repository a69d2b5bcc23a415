"""The library that these tests call: built from the sources at hand, with sanitizers if asked."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocontrast.native import build, library

HERE = Path(__file__).parent
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def pytest_configure(config: pytest.Config) -> None:
    """Before the first test is collected: a library of other sources is built again."""
    if not build.compiler():
        return
    if os.environ.get("NATIVE_SANITIZED") == "1":
        folder = Path(config.cache.mkdir("native")) if config.cache else HERE
        library.PATH = folder / build.LIBRARY
        build.build(library.PATH, SANITIZED)
    elif library.missing():
        build.build(library.PATH)
    library.loaded.cache_clear()
    library.widest.cache_clear()


def served(item: pytest.Item) -> bool:
    """Whether C has the operator, and the similarity: test_refusals.py is about the others."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    by_distance = given.get("similarity") == "euclidean" and "_of_transfer" in item.name
    return not by_distance and "distribution" not in item.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a compiler there is nothing to test."""
    here = [item for item in items if HERE in item.path.parents]
    if library.missing():
        for item in here:
            item.add_marker(pytest.mark.skip(reason=f"expected a library {library.missing()}"))
    refused = [item for item in here if not served(item)]
    config.hook.pytest_deselected(items=refused)
    items[:] = [item for item in items if item not in refused]


@pytest.fixture(autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """Calls of the widest there is or the one that is asked for, or of the test's own."""
    # The library may not be built before.
    from tests.native.variants import NAMES, variant

    with variant(getattr(request, "param", os.environ.get("NATIVE_VARIANT", NAMES[-1]))):
        yield


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place without a library."""
    monkeypatch.setattr(library, "PATH", tmp_path / build.LIBRARY)
    library.loaded.cache_clear()
    yield library.PATH
    library.loaded.cache_clear()
