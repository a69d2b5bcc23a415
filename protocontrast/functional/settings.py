"""Settings of the losses: what each may be, and one frozen set per loss, checked where it is made.

A function and its module make the same set, so that both refuse a setting with one sentence.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from protocontrast.checks import (
    check_choice,
    check_count,
    check_flag,
    check_ignore_index,
    check_share,
    sentence,
)
from protocontrast.functional.temperature import check_temperature
from protocontrast.ops.backend import BACKENDS

Similarity = Literal["cosine", "dot", "euclidean"]
Reduction = Literal["mean", "sum", "none"]
Absent = Literal["mask", "floor"]
Balance = Literal["pixel", "class"]
Denominator = Literal["negatives", "all"]
Backend = Literal["auto", "triton", "native", "eager", "naive"]

SIMILARITIES = get_args(Similarity)
REDUCTIONS = get_args(Reduction)
ABSENT = get_args(Absent)
BALANCES = get_args(Balance)
DENOMINATORS = get_args(Denominator)


@dataclass(frozen=True, eq=False)
class ContrastSettings:
    """Of `pixel_prototype_contrast`."""

    similarity: Similarity
    temperature: float | Tensor
    absent: Absent
    ignore_index: int
    label_smoothing: float
    reduction: Reduction
    backend: Backend

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, SIMILARITIES)
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("absent", self.absent, ABSENT)
        check_temperature(self.temperature)
        check_ignore_index(self.ignore_index)
        check_share("label_smoothing", self.label_smoothing)
        check_choice("backend", self.backend, BACKENDS)
        if self.absent == "floor" and self.similarity != "cosine":
            requirement = 'to be "cosine" with absent="floor"'
            hint = 'only a cosine has a lowest value; use absent="mask".'
            raise ValueError(sentence("similarity", requirement, repr(self.similarity), hint))


@dataclass(frozen=True, eq=False)
class BidirectionalSettings:
    """Of `bidirectional_contrast`, and of the contrasts in `BiCL`."""

    num_classes: int
    pairwise: bool
    temperature: float | Tensor
    absent: Absent
    balance: Balance
    ignore_index: int
    backend: Backend

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes)
        check_flag("pairwise", self.pairwise)
        check_temperature(self.temperature)
        check_choice("absent", self.absent, ABSENT)
        check_choice("balance", self.balance, BALANCES)
        check_choice("backend", self.backend, BACKENDS)
        check_ignore_index(self.ignore_index, self.num_classes)


@dataclass(frozen=True, eq=False)
class PairSettings:
    """Of `pair_contrast`."""

    similarity: Similarity
    temperature: float | Tensor
    denominator: Denominator
    exclude_self: bool
    ignore_index: int
    reduction: Reduction
    backend: Backend

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, SIMILARITIES)
        check_temperature(self.temperature)
        check_choice("denominator", self.denominator, DENOMINATORS)
        check_flag("exclude_self", self.exclude_self)
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("backend", self.backend, BACKENDS)
        check_ignore_index(self.ignore_index)


@dataclass(frozen=True, eq=False)
class UpsampledSettings:
    """Of `upsampled_cross_entropy`."""

    ignore_index: int
    align_corners: bool
    label_smoothing: float
    reduction: Reduction
    backend: Backend

    def __post_init__(self) -> None:
        check_ignore_index(self.ignore_index)
        check_flag("align_corners", self.align_corners)
        check_share("label_smoothing", self.label_smoothing)
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("backend", self.backend, BACKENDS)
