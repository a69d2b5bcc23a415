"""What all autograd functions here share: first derivatives only, said aloud."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from protocontrast.ops.backend import transforms_active

MESSAGE = (
    "protocontrast: expected one backward pass, got a derivative of a gradient (double backward). "
    'Hint: backend="naive" is differentiable twice.'
)


class _Once(torch.autograd.Function):
    """Runs a gradient computation as a node of its own, whose backward raises.

    `once_differentiable` alone would drop a gradient penalty's term without a word.
    """

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[], tuple[Tensor, Tensor]], *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return compute()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        raise RuntimeError(MESSAGE)


def once(
    compute: Callable[[], tuple[Tensor, Tensor]], *inputs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradients of `compute`, which depend on `inputs`; differentiating them raises."""
    recorded = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if recorded and not transforms_active():
        return _Once.apply(compute, *inputs)
    return compute()
