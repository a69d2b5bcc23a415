"""What autograd sees of an operator: the node of a traced call, of a plain one, of one sweep."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from protocontrast.eager.contrast import scale_in_place
from protocontrast.ops.backend import is_plain, unwatched
from protocontrast.ops.gradient import first_order_only, only_first_differentiable

if TYPE_CHECKING:
    from protocontrast.ops.operator import Operator

OPERATORS: dict[str, "Operator"] = {}
"""By name: torch.compile follows a global, but not an object that a function encloses."""


def function_of(name: str, results: int) -> type[torch.autograd.Function]:
    """The node of a call that torch.func or a program may see through."""

    class Function(torch.autograd.Function):
        """The first result differentiable, transparent to torch.func."""

        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Any:
            return OPERATORS[name].op(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if results > 1:
                only_first_differentiable(ctx, output)
            OPERATORS[name].save(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
            if grad_output is None:
                return (None,) * len(ctx.needs_input_grad)
            return OPERATORS[name].gradients(ctx, grad_output)

    return Function


def direct_of(name: str, results: int) -> type[torch.autograd.Function]:
    """The node of a call that nothing watches."""

    class Direct(torch.autograd.Function):
        """The same past torch's dispatcher, the way through which takes longer than a small kernel.

        What forward makes ready of the classes, backward finds as it was.
        """

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = _kept(ctx, OPERATORS[name], inputs)
            if results > 1:
                output = tuple(output)
                only_first_differentiable(ctx, output)
            return output

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
            if grad_output is None:
                return (None,) * len(ctx.needs_input_grad)
            return OPERATORS[name].gradients(ctx, grad_output)

    return Direct


def _kept(ctx: Any, operator: "Operator", given: tuple[Any, ...]) -> Any:
    """The results of a call, of which all is kept that backward reads."""
    make = operator.implementation(given[-1]).ready
    ready = () if make is None else make(operator.settled(given))
    output = operator.run(*given, ready=ready)
    operator.save(ctx, given, output, ready)
    return output


def mean_of(name: str) -> type[torch.autograd.Function]:
    """The node of a mean on a GPU that nothing watches."""

    class Mean(torch.autograd.Function):
        """The sum of losses over that of their weights, in one launch behind that of the losses."""

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            from protocontrast.kernels import totals

            losses, weight, *_ = _kept(ctx, OPERATORS[name], inputs)
            mean, ctx.inverse = totals.mean_of(losses, weight)
            ctx.shape = losses.shape
            return mean

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            grad_losses = (grad_output * ctx.inverse).expand(ctx.shape)
            return OPERATORS[name].gradients(ctx, grad_losses)

    return Mean


def swept_of(name: str) -> type[torch.autograd.Function]:
    """The node of a reduced loss on a CPU."""

    class Swept(torch.autograd.Function):
        """The reduced loss with its gradient written in the forward sweep: one read for both.

        The gradient is handed over by the first backward. A second one (retain_graph) computes it
        again, since the buffer is then the caller's.
        """

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            operator = OPERATORS[name]
            sweep = operator.run_sweep if unwatched(inputs[0]) else operator.sweep
            loss, *ctx.ready = sweep(*inputs, *operator.wants(ctx))
            operator.save(ctx, inputs, None)
            return loss

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
            operator = OPERATORS[name]
            ready, ctx.ready = ctx.ready, None

            def scaled(grad_output: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
                found = operator.sweep(*inputs)[1:] if ready is None else ready
                # A batch of gradients does not fit the buffers.
                scale = scale_in_place if is_plain(grad_output) else torch.mul
                dtypes = (inputs[place].dtype for place in operator.places)
                pairs = zip(found, dtypes, strict=True)
                return tuple(scale(one, grad_output).to(dtype) for one, dtype in pairs)

            given = *ctx.saved_tensors, *ctx.settings, *operator.wants(ctx)
            return operator.placed(ctx, first_order_only(scaled, grad_output, *given))

    return Swept
