"""Settings of `BiCL`, where no bank or bias checks them itself."""

import math
from dataclasses import dataclass
from typing import Literal

from protocontrast.checks import called, check_choice, check_flag, is_number, sentence, shown
from protocontrast.functional.settings import BidirectionalSettings
from protocontrast.functional.transfer import MEASURES, RANGES, Measure, check_threshold


@dataclass(frozen=True, eq=False)
class BiCLSettings(BidirectionalSettings):
    """Of the contrasts, of the transfer, and of the order of a step."""

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
