"""Counts what would start on a GPU: torch's own operators that write something, and kernels."""

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

NOTHING_STARTS = ("empty", "_local_scalar_dense", "is_same_size")
"""Parts of names of operators that only make room, or look."""


def starts_something(function: Any) -> bool:
    """Whether a GPU would get a kernel, or a copy, for a call of this operator of torch."""
    returns = function._schema.returns
    views = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    return not views and not any(part in function.__name__ for part in NOTHING_STARTS)


class Launches(TorchDispatchMode):
    """Operators of torch within it that start something, by name.

    (`torch.where` of a number is two: the number becomes a tensor first.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if starts_something(function):
            self.found[function.__name__] += 1
        return function(*args, **(kwargs or {}))


def launches_of_torch(call: Any) -> Counter[str]:
    """Those of a call, the backward pass it may hold among them."""
    with Launches() as mode:
        call()
    assert not any(name.startswith("protocontrast") for name in mode.found), mode.found
    return mode.found
