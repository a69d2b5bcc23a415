"""Every setting of a run says what it is, and where its value comes from."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from reference.engine.presets import PRESETS
from reference.engine.settings import Settings

ORIGIN = re.compile(
    r"\b(paper|released?|own|likewise|DAFormer|as in `SourceStage`)\b|`SourceStage`"
)
# They say which run it is, and not how it is done.
NAMING = {"mode", "start", "seed", "data.source_set", "network.random_weights"}


def described(kind: type) -> tuple[str, dict[str, str]]:
    """What a class says of itself, and of each of its fields."""
    summary, _, rest = (inspect.getdoc(kind) or "").partition("Args:\n")
    entries = {}
    listed = rest.partition("\n\n")[0]
    for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n     .*)*)", listed, re.MULTILINE):
        entries |= {name: " ".join(text.split()) for name in names.split(", ")}
    return summary, entries


def told(settings: Any, front: str = "", above: str = "") -> Iterator[tuple[str, Any, str, str]]:
    """Name, value, own entry, and all that is said around it, of every setting without parts."""
    summary, entries = described(type(settings))
    for field in fields(settings):
        value, entry = getattr(settings, field.name), entries.get(field.name, "")
        around = " ".join((above, summary, entry))
        if is_dataclass(value):
            yield from told(value, f"{front}{field.name}.", f"{above} {entry}")
        else:
            yield f"{front}{field.name}", value, entry, around


def _where(name: str, value: Any) -> bool:
    """Whether a setting only says where files lie."""
    places = ("data.root", "data.source", "data.target", "network.weights")
    return isinstance(value, Path) or name in places


@pytest.mark.parametrize("preset", PRESETS)
def test_every_setting_is_described_with_its_origin(preset: str):
    rows = list(told(PRESETS[preset][1]))
    assert len(rows) > 80
    # The numbers of drawn images are described together.
    bare = [name for name, _, entry, _ in rows if not entry]
    assert [name for name in bare if not name.startswith("data.drawn.")] == []
    without = [
        name
        for name, value, _, around in rows
        if not ORIGIN.search(around) and name not in NAMING and not _where(name, value)
    ]
    assert without == []


def test_a_setting_without_an_origin_is_found():
    @dataclass(frozen=True)
    class Part:
        """A part.

        Args:
            named, other: a number; own.
            bare: a number.
        """

        named: int = 1
        other: int = 1
        bare: int = 1

    rows = {name: (entry, around) for name, _, entry, around in told(Part())}
    assert rows["named"][0] == rows["other"][0] == "a number; own."
    assert ORIGIN.search(rows["other"][1]) and not ORIGIN.search(rows["bare"][1])
    assert len(list(told(Settings()))) > 80
