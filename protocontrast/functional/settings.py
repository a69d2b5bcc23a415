"""Settings of the losses: what each may be, and one frozen set per loss, checked where it is made.

A function and its module make the same set, so that both refuse a setting with one sentence. A
temperature is a number, or a tensor that is annealed or learnt.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from protocontrast.checks import (
    check_choice,
    check_count,
    check_flag,
    check_floating,
    check_ignore_index,
    check_no_grad,
    check_positive,
    check_share,
    sentence,
)
from protocontrast.ops.backend import BACKENDS, is_plain

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


def check_class_weight(weight: Tensor | None, to: str = "features and prototypes") -> None:
    """None, or floating of shape (C,) without gradient; `to` says what gets one."""
    if weight is None:
        return
    check_floating("class_weight", weight)
    check_no_grad("class_weight", weight, to)
    if weight.dim() != 1:
        raise ValueError(sentence("class_weight", "of shape (C,)", tuple(weight.shape)))


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


def check_temperature(temperature: object) -> None:
    """A finite number above 0, or a floating 0-d tensor of one.

    What a tensor holds is looked at on the CPU alone, and only where it holds something.
    """
    if not isinstance(temperature, Tensor):
        check_positive("temperature", temperature)  # type: ignore[arg-type]
        return
    check_floating("temperature", temperature)
    if temperature.dim() != 0:
        requirement = "to be a number or a tensor of shape ()"
        one = temperature.numel() == 1
        hint = "temperature.squeeze() has one." if one else "all classes share one temperature."
        raise ValueError(sentence("temperature", requirement, tuple(temperature.shape), hint))
    if _may_be_read(temperature):
        check_positive("temperature", float(temperature.detach()))


def _may_be_read(temperature: Tensor) -> bool:
    """Whether its value can be looked at, which nobody waits for and no program keeps."""
    on_host = temperature.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_host and is_plain(temperature.detach())


def read_temperature(
    temperature: float | Tensor, like: Tensor, name: str = "features"
) -> float | Tensor:
    """The checked temperature, as `placed_temperature` gives it."""
    check_temperature(temperature)
    return placed_temperature(temperature, like, name)


def placed_temperature(
    temperature: float | Tensor, like: Tensor, name: str = "features"
) -> float | Tensor:
    """A number, or a tensor on the CPU or beside `like` where its value cannot be asked for.

    A tensor is wide, and requires a gradient only where one is wanted.
    """
    if not isinstance(temperature, Tensor):
        return float(temperature)
    if temperature.device not in (torch.device("cpu"), like.device):
        where = "on cpu" if like.device.type == "cpu" else f"on cpu or {like.device}"
        requirement = f"{where} like {name}"
        raise ValueError(sentence("temperature", requirement, temperature.device))
    if not (temperature.requires_grad and torch.is_grad_enabled()):
        temperature = temperature.detach()
        if _may_be_read(temperature):
            return float(temperature)
    return temperature if temperature.dtype == torch.float64 else temperature.float()
