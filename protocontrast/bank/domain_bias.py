"""The class-wise shift between two domains: `DomainBias` (buffers bias, present, count)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from protocontrast.bank.buffers import WideBuffers
from protocontrast.checks import (
    called,
    check_choice,
    check_count,
    check_device,
    check_factor,
    check_like,
    check_shape,
    check_share,
    check_tensor,
    sentence,
)
from protocontrast.functional.precision import widest_dtype

WARMUPS = ("zero", "copy")

Warmup = Literal["zero", "copy"]


@dataclass(frozen=True, eq=False)
class BiasSettings:
    """Of `DomainBias`."""

    num_classes: int
    dim: int
    momentum: float
    warmup: Warmup

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes)
        check_count("dim", self.dim)
        check_share("momentum", self.momentum)
        check_choice("warmup", self.warmup, WARMUPS)
        object.__setattr__(self, "momentum", float(self.momentum))


class BiasState(NamedTuple):
    """What an update changes: the buffers of these names."""

    bias: Tensor
    present: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count


class DomainBias(WideBuffers):
    """How far target prototypes lie from source prototypes, class by class, estimated gradually.

        xi_c <- momentum * xi_c + (1 - momentum) * (target_c - source_c)
        calibrated_c = source_c + strength * xi_c

    Args:
        num_classes: C.
        dim: D.
        momentum: in [0, 1], weighs the OLD value.
        warmup: "zero" starts every class at 0, so calibration grows gradually; "copy" starts at the
            class's first difference.

    Attributes:
        bias: (C, D) float32.
        present: (C,) bool, the class was seen in both domains.
        count: (C,) int64, updates of the class.

    Raises:
        ValueError: a size below 1, a momentum outside [0, 1], an unknown warmup, or other shapes.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892 (calibration of class-wise domain biases); our
        reading, (M10) and (M11) of docs/maths.md.

    Example:
        >>> import torch
        >>> bias = DomainBias(1, 2, momentum=0.5)
        >>> bias.update(torch.zeros(1, 2), torch.tensor([[4.0, 0.0]]), torch.tensor([True]))
        >>> bias.calibrate(torch.ones(1, 2)).tolist()
        [[3.0, 1.0]]
    """

    Settings = BiasSettings
    fixed = ("num_classes", "dim")
    bias: Tensor
    present: Tensor
    count: Tensor

    @called("DomainBias")
    def __init__(
        self, num_classes: int, dim: int, *, momentum: float = 0.99, warmup: Warmup = "zero"
    ) -> None:
        super().__init__()
        self.num_classes, self.dim = num_classes, dim
        self.momentum, self.warmup = momentum, warmup
        self.check()
        self.register_buffer("bias", torch.zeros(num_classes, dim, dtype=torch.float32))
        self.register_buffer("present", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def update(self, source: Tensor, target: Tensor, present: Tensor) -> None:
        """Move the bias towards target - source, (C, D) each, for classes `present` (C,) in both.

        Rows of other classes are never read; a class whose difference is not finite keeps its bias.
        """
        self.take(self.moved_by(source, target, present))

    @called("DomainBias")
    @torch.no_grad()
    def moved_by(self, source: Tensor, target: Tensor, present: Tensor) -> BiasState:
        """What `update` would make of the bias, which stays as it is."""
        self._check("source", source)
        self._check("target", target)
        self._check_present(present)
        return self.moved_by_checked(source, target, present)

    def moved_by_checked(self, source: Tensor, target: Tensor, present: Tensor) -> BiasState:
        """The same of rows and presence that have been checked."""
        wide = widest_dtype(self.bias.device)
        difference = target.to(wide) - source.to(wide)
        used = present & torch.isfinite(difference.to(self.bias.dtype)).all(dim=1)
        difference = torch.where(used[:, None], difference, 0)
        moved = self.momentum * self.bias.to(wide) + (1 - self.momentum) * difference
        if self.warmup == "copy":
            moved = torch.where(self.present[:, None], moved, difference)
        new = torch.where(used[:, None], moved.to(self.bias.dtype), self.bias)
        return BiasState(new, self.present | used, self.count + used)

    @torch.no_grad()
    def take(self, state: BiasState) -> None:
        """Go on from a state that `moved_by` gave."""
        for name, new in zip(BiasState._fields, state, strict=True):
            getattr(self, name).copy_(new)

    @called("DomainBias")
    def calibrate(self, prototypes: Tensor, strength: float = 1.0) -> Tensor:
        """Prototypes (C, D) moved by `strength` times the bias; classes without a bias stay.

        `strength` is any finite number; 0 switches calibration off.
        """
        self._check("prototypes", prototypes)
        check_factor("strength", strength)
        return self.added_to(prototypes, float(strength))

    def added_to(self, prototypes: Tensor, strength: float = 1.0) -> Tensor:
        """The same of prototypes that have been checked."""
        return prototypes + strength * self.bias.to(prototypes.dtype)

    def _check(self, argument: str, rows: Tensor) -> None:
        reason = f"for {self.num_classes} classes and dim {self.dim}"
        check_like(argument, rows, tuple(self.bias.shape), reason, self.bias, "the bias")

    def _check_present(self, present: Tensor) -> None:
        check_tensor("present", present)
        if present.dtype != torch.bool:
            raise TypeError(sentence("present", "of dtype torch.bool", present.dtype))
        check_shape("present", present, (self.num_classes,), "= (C,)")
        check_device("present", present, self.bias, "the bias")
