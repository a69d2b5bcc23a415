"""What all autograd functions here share: first derivatives only, said aloud."""

from collections.abc import Callable
from typing import Any

import torch

MESSAGE = (
    "protocontrast: expected one backward pass, got a derivative of a gradient (double backward). "
    'Hint: backend="naive" is differentiable twice.'
)


class _Once(torch.autograd.Function):
    """Runs a gradient computation as a node of its own, whose backward raises.

    `once_differentiable` alone would drop a gradient penalty's term without a word.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(compute: Callable[..., Any], *inputs: Any) -> Any:
        return compute(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        raise RuntimeError(MESSAGE)


def once(compute: Callable[..., Any], *inputs: Any) -> Any:
    """The gradients `compute(*inputs)`; differentiating them raises.

    Every tensor that the gradients depend on is one of the inputs, so that torch.func can unwrap
    it.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Once.apply(compute, *inputs)
    return compute(*inputs)
