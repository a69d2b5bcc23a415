"""Calls with CPU tensors carried to the device and back, memory layout included."""

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import protocontrast

NO_DEVICE = "tests/gpu: expected a CUDA device, got none; every test was skipped."
NO_TRITON = "tests/gpu: expected triton to be installed, got none; every test was skipped."


def missing() -> str:
    """Why nothing can run here, or ""."""
    if not torch.cuda.is_available():
        return NO_DEVICE
    return "" if find_spec("triton") else NO_TRITON


def moved(tensor: Tensor, device: str) -> Tensor:
    """A copy with the same strides, offset and surroundings, NaN between the elements included."""
    if not tensor.numel():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    whole = tensor.detach().as_strided((count,), (1,), 0).to(device, copy=True)
    return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


class _Moved(torch.autograd.Function):
    """Carries a tensor there and its gradient back, each with its own strides."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: str) -> Tensor:
        ctx.home = tensor.device.type
        return moved(tensor, device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return moved(gradient, ctx.home), None


def _there(value: Any, device: str) -> Any:
    return _Moved.apply(value, device) if isinstance(value, Tensor) else value


def on_device(function: Callable[..., Any], device: str = "cuda") -> Callable[..., Any]:
    """The function, which with backend="triton" computes on the device.

    Other backends stay on the CPU, so that what the kernels are held against owes them nothing.
    """

    def call(*values: Any, **named: Any) -> Any:
        if named.get("backend") != "triton":
            return function(*values, **named)
        found = function(
            *(_there(value, device) for value in values),
            **{name: _there(value, device) for name, value in named.items()},
        )
        if isinstance(found, Tensor):
            return _there(found, "cpu")
        return type(found)(*(_there(value, "cpu") for value in found))

    return call


def carry(module: ModuleType, device: str = "cuda") -> None:
    """Exchange the library's functions that a test module has imported."""
    names = [name for name in protocontrast.functional.__all__ if name in vars(module)]
    functions = [name for name in names if callable(vars(module)[name])]
    kept = {"labels_to_grid", "fuse_labels", "check_labels"}
    carried = [n for n in functions if n not in kept and not isinstance(vars(module)[n], type)]
    if not carried:
        raise RuntimeError(f"carry: expected functions of the library, got none in {module}.")
    for name in carried:
        setattr(module, name, on_device(vars(module)[name], device))
