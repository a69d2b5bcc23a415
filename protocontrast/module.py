"""What the library's modules have in common: typed calls, and settings that stay checked."""

from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar

from torch import Tensor, nn

from protocontrast.checks import called

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


class Configured(Module):
    """A module whose settings are attributes, named as the fields of a frozen dataclass.

    That refuses what is wrong among them, at construction and when one is replaced.
    """

    Settings: ClassVar[Any]
    """The dataclass."""

    settings: Any
    """One of that class, made of the attributes."""

    def given(self) -> dict[str, Any]:
        """The settings by name, as the attributes are now."""
        return {name: getattr(self, name) for name in self.Settings.__dataclass_fields__}

    def check(self, **replaced: Any) -> None:
        """Refuse what is wrong among the settings, of which some are about to be replaced."""
        self.__dict__["settings"] = self.Settings(**self.given() | replaced)

    def __setattr__(self, name: str, value: Any) -> None:
        if "settings" in self.__dict__ and name in self.Settings.__dataclass_fields__:
            called(type(self).__name__)(self.check)(**{name: value})
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        """The constructor's arguments by name, but for those that are kept elsewhere."""
        given = signature(type(self)).parameters.values()
        names = [one.name for one in given if one.kind is one.KEYWORD_ONLY]
        values = [(name, getattr(self, name)) for name in names if hasattr(self, name)]
        return ", ".join(
            f"{name}={value}" if isinstance(value, Tensor) else f"{name}={value!r}"
            for name, value in values
        )
