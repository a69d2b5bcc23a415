"""A temperature that is a tensor, whose value may change without another compilation."""

from torch import Tensor

from protocontrast.ops.gradient import private_copy, snapshot_if_traced


def is_learnt(temperature: float | Tensor) -> bool:
    """Whether a gradient to it is wanted."""
    return isinstance(temperature, Tensor) and temperature.requires_grad


def private(temperature: float | Tensor) -> float | Tensor:
    """The temperature, a copy where it is a tensor that backward reads and does not reach."""
    if not isinstance(temperature, Tensor) or temperature.requires_grad:
        return temperature
    return private_copy(snapshot_if_traced(temperature))
