"""What the library's modules have in common: a call with the types of its `forward`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from torch import nn

Given = ParamSpec("Given")
Result = TypeVar("Result", covariant=True)


class HasForward(Protocol[Given, Result]):
    """A module, to a type checker that asks what calling it takes and returns."""

    @property
    def forward(self) -> Callable[Given, Result]:
        """What a call runs, hooks aside."""


class Module(nn.Module):
    """A module whose call takes and returns, also to a type checker, what its `forward` does."""

    if TYPE_CHECKING:

        def __call__(  # torch declares it with `Any`, which hides names and types of results
            self: HasForward[Given, Result], *args: Given.args, **kwargs: Given.kwargs
        ) -> Result: ...
