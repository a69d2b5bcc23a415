"""What the settings of `BiCL` must be, where no bank or bias checks them itself."""

import math
from numbers import Integral
from typing import Any

from protocontrast.checks import (
    LARGEST_INTEGER,
    called,
    check_choice,
    check_flag,
    check_ignore_index,
    is_number,
    sentence,
    shown,
)
from protocontrast.functional.class_balance import BALANCES
from protocontrast.functional.contrast import ABSENT, BACKENDS
from protocontrast.functional.temperature import check_temperature
from protocontrast.functional.transfer import MEASURES, RANGES, check_threshold


@called("BiCL")
def check_settings(given: Any) -> None:
    """ValueError, or TypeError for `ignore_index` and flags, on the first that is wrong."""
    check_temperature(given.temperature)
    check_choice("measure", given.measure, MEASURES)
    check_choice("prototypes", given.prototypes, ("bank", "batch"))
    check_choice("bank_update", given.bank_update, ("before", "after"))
    check_choice("absent", given.absent, ABSENT)
    check_choice("balance", given.balance, BALANCES)
    check_choice("backend", given.backend, BACKENDS)
    flags = {"pairwise": given.pairwise, "calibrate": given.calibrate, "validate": given.validate}
    for name, flag in flags.items():
        check_flag(name, flag)
    if given.pairwise and given.prototypes != "batch":
        hint = "a bank belongs to no image pair."
        requirement = 'to be False with prototypes="bank"'
        raise ValueError(sentence("pairwise", requirement, "True", hint))
    kind = "cosine" if given.measure == "similarity" else given.measure
    check_threshold(given.threshold, kind, RANGES[kind][0])
    weights = given.weights
    if not isinstance(weights, (tuple, list)) or not [*map(is_number, weights)] == [True, True]:
        raise ValueError(sentence("weights", "to be two numbers", shown(weights)))
    if any(math.isinf(float(weight)) for weight in weights):
        requirement = "to be two finite numbers"
        raise ValueError(sentence("weights", requirement, shown(weights)))
    check_ignore_index(given.ignore_index)
    # A bank says what is wrong with a number of classes that is none.
    classes = given.num_classes
    if isinstance(classes, Integral) and classes <= LARGEST_INTEGER:
        check_ignore_index(given.ignore_index, classes)  # type: ignore[arg-type]
