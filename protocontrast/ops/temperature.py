"""A temperature that is a tensor, whose value may change without another compilation."""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

from protocontrast.ops.gradient import kept, steady

SCHEMA = "Tensor? annealed"
"""Beside `float temperature`, which it replaces where it is given."""

Inputs = TypeVar("Inputs")
Settings = TypeVar("Settings")


def in_inputs(inputs: Inputs, settings: Settings) -> tuple[Inputs, Settings]:
    """Named tuples in which a temperature that is a tensor stands among the tensors."""
    temperature = settings.temperature  # type: ignore[attr-defined]
    if not isinstance(temperature, Tensor):
        return inputs, settings
    inputs = inputs._replace(annealed=steady(temperature))  # type: ignore[attr-defined]
    return inputs, settings._replace(temperature=1.0)  # type: ignore[attr-defined]


def settled(arguments: Sequence[Any], annealed: int, temperature: int) -> list[Any]:
    """An operator's arguments, that at `annealed` taken out to stand in for the temperature.

    Its value is read on a CPU; elsewhere the host would wait for it.
    """
    found = list(arguments)
    value = found.pop(annealed)
    if value is not None:
        found[temperature - 1] = float(value) if value.device.type == "cpu" else value
    return found


def is_learnt(temperature: float | Tensor) -> bool:
    """Whether a gradient to it is wanted."""
    return isinstance(temperature, Tensor) and temperature.requires_grad


def private(temperature: float | Tensor) -> float | Tensor:
    """The temperature, a copy where it is a tensor that backward reads and does not reach."""
    if not isinstance(temperature, Tensor) or temperature.requires_grad:
        return temperature
    return kept(steady(temperature))
