"""What the library's modules have in common: typed calls, and settings that stay checked."""

from collections.abc import Callable
from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar

from torch import Tensor, nn

from protocontrast.checks import called, sentence, shown

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

    That refuses what is wrong among them, at construction and when one is replaced, and may keep a
    number in another type than it was given in.
    """

    Settings: ClassVar[Any]
    """The dataclass."""

    settings: Any
    """One of that class, made of the attributes."""

    fixed: ClassVar[tuple[str, ...]] = ()
    """Settings that the buffers were made by, so that nothing replaces them."""

    def given(self) -> dict[str, Any]:
        """The settings by name, as the attributes are now."""
        return {name: getattr(self, name) for name in self.Settings.__dataclass_fields__}

    def check(self) -> None:
        """Refuse what is wrong among the settings, else keep them as the dataclass has them."""
        settings = self.Settings(**self.given())
        for name in self.Settings.__dataclass_fields__.keys() & self.__dict__.keys():
            self.__dict__[name] = getattr(settings, name)
        self.__dict__["settings"] = settings

    def __setattr__(self, name: str, value: Any) -> None:
        if "settings" not in self.__dict__ or name not in self.Settings.__dataclass_fields__:
            super().__setattr__(name, value)
            return
        settings = called(type(self).__name__)(self._with)(name, value)
        super().__setattr__(name, getattr(settings, name))
        self.__dict__["settings"] = settings

    def _with(self, name: str, value: Any) -> Any:
        """The settings with one of them replaced."""
        before = getattr(self, name)
        if name in self.fixed and not (isinstance(value, Integral) and value == before):
            hint = f"buffers were made for it; make another {type(self).__name__}."
            raise ValueError(sentence(name, f"to stay {before}", shown(value), hint))
        return self.Settings(**self.given() | {name: value})

    def extra_repr(self) -> str:
        """The constructor's arguments by name, but for those that are kept elsewhere."""
        given = signature(type(self)).parameters.values()
        names = [one.name for one in given if one.kind is one.KEYWORD_ONLY]
        kept = self.__dict__.keys() | self._parameters.keys()
        values = [(name, getattr(self, name)) for name in names if name in kept]
        return ", ".join(
            f"{name}={value}" if isinstance(value, Tensor) else f"{name}={value!r}"
            for name, value in values
        )
