"""Modules under another package's import names, and a registry like those of OpenMMLab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


class Registry:
    """Classes by their names; `register_module()` decorates."""

    def __init__(self) -> None:
        self.module_dict: dict[str, type] = {}

    def register_module(self) -> Callable[[type], type]:
        def register(cls: type) -> type:
            self.module_dict[cls.__name__] = cls
            return cls

        return register


def packaged(contents: Mapping[str, Mapping[str, Any]]) -> dict[str, ModuleType]:
    """Modules by dotted name, each with its parents, holding the given attributes."""
    modules: dict[str, ModuleType] = {}
    for name, attributes in contents.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            dotted = ".".join(parts[:depth])
            modules.setdefault(dotted, ModuleType(dotted))
            if depth > 1:
                setattr(modules[".".join(parts[: depth - 1])], parts[depth - 1], modules[dotted])
        vars(modules[name]).update(attributes)
    return modules
