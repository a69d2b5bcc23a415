"""What the settings of `BiCL` must be, where no bank or bias checks them itself."""

import math
from numbers import Integral

from torch import Tensor

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
def check_settings(
    *,
    num_classes: int,
    temperature: float | Tensor,
    threshold: float,
    measure: str,
    prototypes: str,
    bank_update: str,
    pairwise: bool,
    calibrate: bool,
    absent: str,
    weights: tuple[float, float],
    balance: str,
    ignore_index: int,
    validate: bool,
    backend: str,
) -> None:
    """ValueError, or TypeError for `ignore_index` and flags, on the first setting that is wrong."""
    check_temperature(temperature)
    check_choice("measure", measure, MEASURES)
    check_choice("prototypes", prototypes, ("bank", "batch"))
    check_choice("bank_update", bank_update, ("before", "after"))
    check_choice("absent", absent, ABSENT)
    check_choice("balance", balance, BALANCES)
    check_choice("backend", backend, BACKENDS)
    flags = {"pairwise": pairwise, "calibrate": calibrate, "validate": validate}
    for name, flag in flags.items():
        check_flag(name, flag)
    if pairwise and prototypes != "batch":
        hint = "a bank belongs to no image pair."
        requirement = 'to be False with prototypes="bank"'
        raise ValueError(sentence("pairwise", requirement, "True", hint))
    kind = "cosine" if measure == "similarity" else measure
    check_threshold(threshold, kind, RANGES[kind][0])
    if not isinstance(weights, (tuple, list)) or not [*map(is_number, weights)] == [True, True]:
        raise ValueError(sentence("weights", "to be two numbers", shown(weights)))
    if any(math.isinf(float(weight)) for weight in weights):
        requirement = "to be two finite numbers"
        raise ValueError(sentence("weights", requirement, shown(weights)))
    check_ignore_index(ignore_index)
    # A bank says what is wrong with a number of classes that is none.
    if isinstance(num_classes, Integral) and num_classes <= LARGEST_INTEGER:
        check_ignore_index(ignore_index, num_classes)
