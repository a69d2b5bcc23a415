"""Settings of `BiCL`: those that it checks, and those that its banks and its bias hold."""

import math
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from protocontrast.checks import called, check_choice, check_flag, is_number, sentence, shown
from protocontrast.functional.settings import BidirectionalSettings
from protocontrast.functional.transfer import MEASURES, RANGES, Measure, check_threshold

Value = TypeVar("Value")


class Held(Generic[Value]):
    """A setting that inner modules hold, alike: read from the first, replaced in all of them.

    They check it, as at construction; the first refuses before any other has taken it.
    """

    def __init__(self, name: str, *holders: str) -> None:
        self.name = name
        self.holders = holders

    def __get__(self, module: Any, owner: type | None = None) -> Value:
        if module is None:
            raise AttributeError(self.name)
        held: Value = getattr(getattr(module, self.holders[0]), self.name)
        return held

    def __set__(self, module: Any, value: Value) -> None:
        for holder in self.holders:
            setattr(getattr(module, holder), self.name, value)


@dataclass(frozen=True, eq=False)
class BiCLSettings(BidirectionalSettings):
    """Of the contrasts, of the transfer, and of the order of a step."""

    dim: int
    threshold: float
    measure: Measure
    prototypes: Literal["bank", "batch"]
    bank_update: Literal["before", "after"]
    calibrate: bool
    weights: tuple[float, float]
    validate: bool

    @called("BiCL")
    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("measure", self.measure, MEASURES)
        check_choice("prototypes", self.prototypes, ("bank", "batch"))
        check_choice("bank_update", self.bank_update, ("before", "after"))
        check_flag("calibrate", self.calibrate)
        check_flag("validate", self.validate)
        if self.pairwise and self.prototypes != "batch":
            hint = "a bank belongs to no image pair."
            requirement = 'to be False with prototypes="bank"'
            raise ValueError(sentence("pairwise", requirement, "True", hint))
        kind = "cosine" if self.measure == "similarity" else self.measure
        check_threshold(self.threshold, kind, RANGES[kind][0])
        weights = self.weights
        if not isinstance(weights, (tuple, list)) or not [*map(is_number, weights)] == [True, True]:
            raise ValueError(sentence("weights", "to be two numbers", shown(weights)))
        if any(math.isinf(float(weight)) for weight in weights):
            requirement = "to be two finite numbers"
            raise ValueError(sentence("weights", requirement, shown(weights)))
        object.__setattr__(self, "weights", (float(weights[0]), float(weights[1])))
