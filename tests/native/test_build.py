"""How the library is built: which compiler, and what is said where there is none or it fails."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocontrast.native import build, library
from tests.native.variants import EVERY
from tests.operator_calls import contrast
from tests.strategies import ContrastCase


def test_the_compiler_that_is_named_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh -c")
    assert build.compiler() == ["sh", "-c"]
    monkeypatch.setenv("CC", "/no/compiler")
    assert build.compiler() == []


def test_without_a_compiler_there_is_no_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "/no/compiler")
    with pytest.raises(RuntimeError, match="expected a C compiler"):
        build.build(tmp_path / build.LIBRARY)
    assert list(tmp_path.iterdir()) == []


def test_what_the_compiler_says_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-flag"):
        build.build(tmp_path / build.LIBRARY, ("--no-such-flag",))
    assert list(tmp_path.iterdir()) == []


SLOW_LINKER = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
case $2 in
    *.o) : > "$2" ;;
    *) [ -e "$2" ] && exit 1; printf who > "$2"; sleep 0.5; printf le >> "$2" ;;
esac
"""


def test_builds_at_once_share_no_file_and_clear_away_what_killed_ones_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler, output = tmp_path / "cc", tmp_path / "out" / build.LIBRARY
    compiler.write_text(SLOW_LINKER)
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    old, young = (output.with_name(f"{output.name}.{name}.new") for name in ("old", "young"))
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "contrast.o").touch()
    os.utime(old, (0, 0))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build.build, [output] * 2))
    assert output.read_text() == "whole"
    assert sorted(output.parent.iterdir()) == [output, young]


@pytest.mark.parametrize("changed", ["product.h", "contrast.c"])
def test_the_digest_follows_every_source(
    changed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = build.digest()
    for path in build.SOURCES.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    assert build.digest() == before
    (tmp_path / changed).write_text("/* other */\n")
    assert build.digest() != before


def test_every_variant_that_c_counts_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert [one.name for one in build.variants()] == ["baseline", "avx2", "avx512"]
    listed = "EACH(baseline) EACH(avx2) EACH(avx512)"
    assert listed in (build.SOURCES / "library.c").read_text("utf-8")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert [one.name for one in build.variants()] == ["baseline"]


@EVERY
@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_either_compiler(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one builds does what the other's does, in every instruction set."""
    if not shutil.which(compiler):
        pytest.skip(f"expected {compiler}")
    monkeypatch.setenv("CC", compiler)
    build.build(tmp_path / build.LIBRARY, ("-Werror",))
    monkeypatch.setattr(library, "PATH", tmp_path / build.LIBRARY)
    library.loaded.cache_clear()
    try:
        assert library.missing() == ""
        for soft in (False, True):
            contrast(ContrastCase(0, (2, 33, 9, 15), 19, soft=soft)).assert_agrees("native")
    finally:
        library.loaded.cache_clear()
