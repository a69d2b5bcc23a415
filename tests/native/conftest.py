"""The library that these tests call: built from the sources at hand, with sanitizers if asked."""

import os
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a compiler there is nothing to test."""
    if library.missing():
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"expected a library {library.missing()}"))
