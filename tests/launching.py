"""What operators of torch do in a call: what would start on a GPU, and the room they take."""

from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from protocontrast.kernels import compilers

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None or (compilers.RELEASE or (0,)) < (3, 6),
    reason="expected triton 3.6 or later",
)

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


class Largest(TorchDispatchMode):
    """The size of the largest tensor that appears within it."""

    def __init__(self, size_of: Callable[[Tensor], int]) -> None:
        super().__init__()
        self.size_of, self.largest = size_of, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = [self.size_of(one) for one in tree_leaves(result) if isinstance(one, Tensor)]
        self.largest = max(self.largest, *sizes, 0)
        return result
