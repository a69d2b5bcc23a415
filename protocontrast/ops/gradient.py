"""What all autograd functions here share: first derivatives only, said aloud."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from protocontrast.ops.backend import transforms_active

Optional = TypeVar("Optional", Tensor, Tensor | None)

MESSAGE = (
    "protocontrast: expected one backward pass, got a derivative of a gradient (double backward). "
    'Hint: backend="naive" is differentiable twice.'
)
FORWARD_MODE = (
    "protocontrast: expected reverse mode, got forward mode (jvp) in a compiled program. "
    'Hint: backend="naive" has a jvp.'
)


class _FirstOrder(torch.autograd.Function):
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


def only_first_differentiable(ctx: Any, output: tuple[Tensor, ...]) -> None:
    """Mark the others, without the zeros that would stand for their gradients in backward.

    Backward then gets None where no gradient reaches the first result either.
    """
    ctx.mark_non_differentiable(*output[1:])
    if not torch.compiler.is_compiling():
        ctx.set_materialize_grads(False)


def differentiable(
    function: type[torch.autograd.Function], operator: Callable[..., Any], *inputs: Any
) -> Any:
    """`function` of the inputs; its bare operator where no gradient can be wanted.

    Without one torch.compile cannot trace a function that has a `setup_context`, and outside of a
    program it would only be slower; a transform needs its rule for batches.
    """
    if torch.compiler.is_compiling():
        refusal = _what_would_be_silent()
        if refusal:
            raise RuntimeError(refusal)
        inputs = tuple(_viewed(v) if isinstance(v, Tensor) else v for v in inputs)
        wanted = any(v.requires_grad for v in inputs if isinstance(v, Tensor))
        if not (torch.is_grad_enabled() and wanted):
            return operator(*inputs)
    elif not torch.is_grad_enabled() and not transforms_active():
        return operator(*inputs)
    return function.apply(*inputs)


def _viewed(value: Tensor) -> Tensor:
    """The tensor; of func.grad's argument itself the compiler gets `requires_grad` wrong."""
    return value.view_as(value)


def _what_would_be_silent() -> str:
    """The transform around a traced call under which torch.compile would give zeros, or ""."""
    if forward_ad._current_level >= 0:
        return FORWARD_MODE
    stack = torch._C._functorch.get_interpreter_stack() or ()
    gradients = [one for one in stack if one.key() == torch._C._functorch.TransformType.Grad]
    return MESSAGE if len(gradients) > 1 else ""


# As torch.compiler.assume_constant_result does, which would import the compiler with the package.
_what_would_be_silent._dynamo_marked_constant = True  # type: ignore[attr-defined]


@torch.library.custom_op("protocontrast::copied", mutates_args=())
def copied(value: Tensor) -> Tensor:
    """A copy that torch.compile cannot see through."""
    return value.clone()


@copied.register_fake
def _(value: Tensor) -> Tensor:
    return value.clone()


# An exported program may be given what required no gradient while it was exported.
copied.register_autograd(lambda ctx, upstream: upstream)


def snapshot_if_traced(value: Optional) -> Optional:
    """The value that a traced call reads; a copy, since a bank may change its buffers.

    torch.compile takes a plain copy, or one that only backward reads, from the buffer as it finds
    it in backward.
    """
    if value is None or not torch.compiler.is_compiling():
        return value
    value = _viewed(value)
    return value if value.requires_grad or _what_would_be_silent() else copied(value)


def private_copy(value: Optional) -> Optional:
    """The value that backward reads; where compiling, `snapshot_if_traced` has made the copy."""
    return value if value is None or torch.compiler.is_compiling() else value.clone()


def is_learnt(temperature: float | Tensor) -> bool:
    """Whether a gradient to it is wanted."""
    return isinstance(temperature, Tensor) and temperature.requires_grad


def private_temperature(temperature: float | Tensor) -> float | Tensor:
    """The temperature, a copy where it is a tensor that backward reads and does not reach."""
    if not isinstance(temperature, Tensor) or temperature.requires_grad:
        return temperature
    return private_copy(snapshot_if_traced(temperature))


def first_order_only(compute: Callable[..., Any], *inputs: Any) -> Any:
    """The gradients `compute(*inputs)`; differentiating them raises.

    Every tensor that the gradients depend on is one of the inputs, so that torch.func can unwrap
    it.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _FirstOrder.apply(compute, *inputs)
    return compute(*inputs)
