"""Starts of kernels: the first of a kind by triton, which compiles it, further ones by a key here.

Triton takes twice as long to find out, at every start, which of its compiled kernels fits: it makes
a name for each argument, and asks the environment for its own settings, which count for a kind of
call as they were at its first start.
"""

from typing import Any

import torch
from torch import Tensor

compiled: dict[tuple[Any, ...], Any] = {}
"""What triton compiled, by device and all that it compiles a kernel anew for."""


def describe(arguments: tuple[Any, ...], key: list[Any]) -> None:
    """Append what triton compiles for of arguments: tensors, numbers, None and tuples of these.

    It marks pointers and integers that 16 divides, takes an integer of 1 for a constant and has two
    widths of integers.
    """
    for value in arguments:
        if isinstance(value, Tensor):
            key += value.dtype, value.data_ptr() % 16 == 0
        elif isinstance(value, tuple):
            key += type(value), len(value)
            describe(value, key)
        elif type(value) is int:
            key += value == 1, value % 16 == 0, -(2**31) <= value < 2**31
        else:
            key.append(type(value))


def start(
    kernel: Any, programs: int, arguments: tuple[Any, ...], meta: Any, options: dict[str, Any],
    device: int,
) -> None:  # fmt: skip
    """Start programs of a kernel on the current device, whose number is given."""
    # A kernel lives as long as its module; its own hash is one of its source.
    key = [id(kernel), device, meta, *options.items()]
    describe(arguments, key)
    kind, grid = tuple(key), (programs, 1, 1)
    found = compiled.get(kind)
    if found is not None:
        found[grid](*arguments, meta)
        return
    # Triton compiles no numbers of numpy, whose key is that of equal ones of Python.
    kinds = {name: type(one) for name, one in meta._field_defaults.items()}
    plain = meta._replace(**{name: kind(getattr(meta, name)) for name, kind in kinds.items()})
    found = kernel.run(*arguments, plain, grid=grid, warmup=False, **options)
    # The interpreter has nothing compiled, and what triton compiles aside cannot be started by a
    # key before it is known to it; on AMD the size of a tensor counts, too.
    if found is not None and hasattr(type(found), "__getitem__") and torch.version.hip is None:
        compiled[kind] = found
