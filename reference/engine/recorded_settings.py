"""Settings as plain values, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from reference.engine.settings import Settings

# What may change when a run goes on, because no trained number depends on it.
MAY_CHANGE: Final = ("data.workers", "data.root", "data.source", "data.target", "reporting.")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def as_plain(settings: Settings) -> dict[str, Any]:
    """Return settings as tables, lists, numbers and words, as JSON holds them."""
    plain: dict[str, Any] = _plain(asdict(settings))
    return plain


def _flat(table: Mapping[str, Any], front: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{front}{name}.")
        else:
            found[front + name] = value
    return found


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the settings that differ and would change what is trained.

    Args:
        stored: of the run, as `as_plain` gives them.
        wanted: now.

    Returns:
        list: "name: before -> now", sorted by name.
    """
    before, now = _flat(stored), _flat(wanted)
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not name.startswith(MAY_CHANGE)
    ]
