"""One declaration per operator, from which torch learns everything else about it.

The arguments of a call are written once, as a named tuple. From it follow the schemas, what
backward keeps, the result of torch.func's transforms and two ways to a gradient: one that reads the
features again, and, for a reduced loss on a CPU, one that writes it in the forward sweep.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from protocontrast.calls import accumulation_dtype
from protocontrast.ops.backend import full_precision, transforms_active, unwatched
from protocontrast.ops.functions import OPERATORS, direct_of, function_of, mean_of, swept_of
from protocontrast.ops.gradient import differentiable, first_order_only, snapshot_if_traced
from protocontrast.ops.reduction import reduced

KINDS: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    str: "str",
    bool: "bool",
    int: "SymInt",
}
KINDS |= {float: "float", float | Tensor: "float"}

_PLAIN = {Tensor, torch.nn.Parameter, type(None)}
"""Of the tensors of a call; others are subclasses."""

SWEEPING = ("eager", "native")
"""Backends of a CPU, which may write a gradient while they take the loss."""


class Implementation(NamedTuple):
    """What a backend does: `forward(call)` gives the results, one or several.

    `backward(grad_output, call, wants, *saved)` gives a gradient for each differentiable tensor,
    `with_gradient(call, mean, wants)` the reduced loss and these. What is not wanted comes back
    empty. `ready(call)` makes what both ways read of the classes; it then stands behind their
    arguments.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None = None
    with_gradient: Callable[..., Any] | None = None
    ready: Callable[[Any], Sequence[Tensor]] | None = None


def named(module: Any, name: str) -> Implementation:
    """What a module has under a name, and with `_backward` and `_with_gradient` behind it."""
    return Implementation(
        getattr(module, name),
        getattr(module, f"{name}_backward", None),
        getattr(module, f"{name}_with_gradient", None),
    )


class Operator:
    """Results of a call, the first one differentiable, by whichever backend is asked for.

    Args:
        name: of the operator, with a namespace where that is not this library's; its gradients have
            it with an ending.
        call: the named tuple of its arguments.
        empty: a call's results without their values.
        eager: plain torch, on any device.
        naive: the specification, given the call as it is.
        triton: imports the kernels, where there are any.
        native: plain C, on a CPU, where there is any.
        check: raises on wrong label values, inside the operators of a CPU.
        results: how many there are.
        differentiable: tensors that get a gradient.
        private: tensors that may be changed before backward, by a bank: it reads a copy.
        unread: tensors of which backward reads dtype and shape at most.
        saved: places of results that backward reads.
        ready: tensors that a backend makes once for both ways, which then read nothing private.
        wide: whether a gradient of the sweep has the accumulation dtype until it is scaled.
        annealed: whether a temperature that is a tensor is handed on, to be read on the device.
    """

    def __init__(
        self, name: str, call: type[Any], empty: Callable[[Any], Sequence[Tensor]], *,
        eager: Implementation, naive: Callable[[Any], Any] | None = None,
        triton: Callable[[], Implementation] | None = None,
        native: Implementation | None = None,
        check: Callable[[Any], None] = lambda call: None, results: int = 1,
        differentiable: Sequence[str] = (), private: Sequence[str] = (),
        unread: Sequence[str] = (), saved: Sequence[int] = (), ready: Sequence[str] = (),
        wide: bool = False, annealed: bool = False,
    ) -> None:  # fmt: skip
        OPERATORS[name] = self
        self.call, self.check, self.private = call, check, private
        self.naive, self.eager, self.native = naive, eager, native
        # What imports is asked once: a call would feel that Python looks it up again.
        self.triton = None if triton is None else cache(triton)
        self.takes_backend = triton is not None or native is not None
        self.saved, self.wide, self.annealed = saved, wide, annealed
        self.kept = len(saved) + len(ready)
        kinds = {field: KINDS[kind] for field, kind in get_type_hints(call).items()}
        fields = [field for field, kind in kinds.items() if kind.startswith("Tensor")]
        if annealed:
            fields.append("annealed")
        tensors = [f"{kinds.get(field, 'Tensor?')} {field}" for field in fields]
        settings = [f"{kind} {field}" for field, kind in kinds.items() if field not in fields]
        self.tensors, self.settings = len(tensors), len(settings)
        self.places = [fields.index(field) for field in differentiable]
        self.rows = [place for place in self.places if fields[place] in private]
        self.copied = [field in (*private, "annealed") for field in fields]
        self.unread = [field in unread for field in fields]
        backend = ["str backend"] if self.takes_backend else []
        wants = [f"bool wants_{field}" for field in differentiable]
        self.op = _register(name, [*tensors, *settings, *backend], results, self.run)
        self.op.register_fake(lambda *given: _one(empty(self.call_of(given))))
        if not differentiable:
            return
        statistics = [f"Tensor result{place}" for place in saved]
        statistics += [f"Tensor? {one}" for one in ready]
        given = ["Tensor grad_output", *tensors, *statistics, *settings, *wants, *backend]
        self.backward = _register(f"{name}_backward", given, len(wants), self.run_backward)
        self.backward.register_fake(self._empty_gradients)
        self.op.register_autograd(self.gradients, setup_context=self.save)
        self.function, self.direct = function_of(name, results), direct_of(name, results)
        self.mean = mean_of(name)
        if eager.with_gradient is not None:
            given = [*tensors, *settings, "bool mean", "str backend", *wants]
            self.sweep = _register(f"{name}_with_gradient", given, 1 + len(wants), self.run_sweep)
            self.sweep.register_fake(self._empty_sweep)
            self.swept = swept_of(name)

    def flat(self, call: Any) -> tuple[Any, ...]:
        """The arguments of a call as an operator of torch takes them."""
        if not self.annealed:
            return tuple(call)
        temperature = call.temperature
        if not isinstance(temperature, Tensor):
            return *call[: self.tensors - 1], None, *call[self.tensors - 1 :]
        call = call._replace(temperature=1.0)
        return *call[: self.tensors - 1], temperature, *call[self.tensors - 1 :]

    def call_of(self, given: Sequence[Any]) -> Any:
        """The call that begins the arguments, its temperature a number where it has one."""
        count = self.tensors + self.settings
        if not self.annealed:
            return self.call(*given[:count])
        return self.call(*given[: self.tensors - 1], *given[self.tensors : count])

    def settled(self, given: Sequence[Any]) -> Any:
        """The same with the temperature that is meant; its value is read on a CPU alone."""
        if not _PLAIN.issuperset(map(type, given[: self.tensors])):
            # What a subclass adds, such as MONAI's affine maps, would follow every step.
            given = [v.as_subclass(Tensor) if isinstance(v, Tensor) else v for v in given]
        call = self.call_of(given)
        annealed = given[self.tensors - 1] if self.annealed else None
        if annealed is None:
            return call
        on_host = annealed.device.type == "cpu"
        return call._replace(temperature=float(annealed) if on_host else annealed)

    def implementation(self, backend: Any) -> Implementation:
        """Of a backend by name."""
        if self.triton and backend == "triton":
            return self.triton()
        return self.native if self.native and backend == "native" else self.eager

    def run(self, *given: Any, ready: Sequence[Tensor] = ()) -> Any:
        """The results, by the backend among the arguments."""
        call = self.settled(given)
        self.check(call)
        with full_precision(call[0]):
            return self.implementation(given[-1]).forward(call, *ready)

    def run_backward(self, grad_output: Tensor, *given: Any) -> Any:
        """The gradients, likewise."""
        call, saved = self.saved_call(given)
        saved = [one for one in saved if one is not None]
        backward = self.implementation(given[-1]).backward
        with full_precision(call[0]):
            return backward(grad_output, call, self._wanted(given), *saved)  # type: ignore[misc]

    def saved_call(self, given: Sequence[Any]) -> tuple[Any, Sequence[Tensor]]:
        """The call and what was kept with it among the arguments of `backward`."""
        begin = self.tensors + self.kept
        call = self.settled((*given[: self.tensors], *given[begin : begin + self.settings]))
        return call, given[self.tensors : begin]

    def _wanted(self, given: Sequence[Any]) -> tuple[bool, ...]:
        begin = self.tensors + self.kept + self.settings
        return given[begin : begin + len(self.places)]  # type: ignore[return-value]

    def run_sweep(self, *given: Any) -> Any:
        """The reduced loss and its gradients, likewise."""
        call, count = self.settled(given), self.tensors + self.settings
        mean, backend, *wants = given[count:]
        self.check(call)
        with full_precision(call[0]):
            return self.implementation(backend).with_gradient(call, mean, tuple(wants))  # type: ignore[misc]

    def _like(self, tensors: Sequence[Any], wants: Sequence[Any], wide: bool) -> tuple[Tensor, ...]:
        found = []
        for place, want in zip(self.places, wants, strict=True):
            one = tensors[place]
            dtype = accumulation_dtype(one) if wide else one.dtype
            found.append(torch.empty_like(one, dtype=dtype) if want else one.new_empty(0))
        return tuple(found)

    def _empty_gradients(self, grad_output: Tensor, *given: Any) -> Any:
        return _one(self._like(given, self._wanted(given), False))

    def _empty_sweep(self, *given: Any) -> tuple[Tensor, ...]:
        loss = given[0].new_empty((), dtype=accumulation_dtype(given[0]))
        return loss, *self._like(given, given[-len(self.places) :], self.wide)

    def save(
        self, ctx: Any, inputs: Sequence[Any], output: Any, ready: Sequence[Tensor] = ()
    ) -> None:
        """Keep what backward reads of the inputs and, where there are any, of the results."""
        tensors, compiling = [], torch.compiler.is_compiling()
        dropped = bool(ready)
        for place in self.rows:
            # The last step of their gradient reads them, and which of them are there.
            dropped &= not ctx.needs_input_grad[place]
        for place in range(self.tensors):
            value = inputs[place]
            private = value is not None and self.copied[place] and not value.requires_grad
            if value is not None and (self.unread[place] or (private and dropped)):
                value = value.new_empty(()).expand(value.shape)
            elif private and not compiling:  # there `snapshot` has made the copy
                value = value.clone()
            tensors.append(value)
        results: list[Tensor | None] = []
        if output is not None:
            several = _many(output)
            for place in self.saved:
                results.append(several[place])
            results += ready or [None] * (self.kept - len(self.saved))
        ctx.save_for_backward(*tensors, *results)
        ctx.settings = inputs[self.tensors :]

    def wants(self, ctx: Any) -> list[bool]:
        """Which of the differentiable tensors want a gradient."""
        return [ctx.needs_input_grad[place] for place in self.places]

    def placed(self, ctx: Any, gradients: Any) -> tuple[Tensor | None, ...]:
        """Gradients at the places of their tensors, None elsewhere."""
        found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for place, gradient in zip(self.places, _many(gradients), strict=True):
            if ctx.needs_input_grad[place]:
                found[place] = gradient
        return tuple(found)

    def given_back(self, ctx: Any) -> tuple[Any, ...]:
        """The arguments of `backward` beside the gradient that comes back."""
        settings, backend = ctx.settings[: self.settings], ctx.settings[self.settings :]
        return *ctx.saved_tensors, *settings, *self.wants(ctx), *backend

    def gradients(self, ctx: Any, grad_output: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """From that of the first result; the features are read again."""
        backward = self.run_backward if unwatched(grad_output) else self.backward
        return self.placed(ctx, first_order_only(backward, grad_output, *self.given_back(ctx)))

    def snapshot(self, call: Any) -> Any:
        """The call with what a bank may change read at once, also in a traced program."""
        if not torch.compiler.is_compiling():
            return call
        fields = [*self.private]
        if self.annealed and isinstance(call.temperature, Tensor):
            fields.append("temperature")
        return call._replace(**{f: snapshot_if_traced(getattr(call, f)) for f in fields})

    def __call__(self, call: Any, backend: str) -> Any:
        """The results of a call."""
        call = self.snapshot(call)
        if backend == "naive" and self.naive:
            with full_precision(call[0]):
                return self.naive(call)
        inputs = self.flat(call)
        if self.takes_backend:
            inputs = *inputs, backend
        if unwatched(call[0]):
            if not (self.places and torch.is_grad_enabled()):
                return self.run(*inputs)
            return self.direct.apply(*inputs)
        return differentiable(self.function, self.op, *inputs) if self.places else self.op(*inputs)

    def in_one_sweep(self, call: Any, reduction: str, backend: str) -> bool:
        """Whether the gradient of a reduced loss is written while the loss is taken."""
        if reduction == "none" or backend not in SWEEPING or call[0].device.type != "cpu":
            return False
        wanted, dtypes = False, []
        for place in self.places:
            wanted |= call[place].requires_grad
            dtypes.append(call[place].dtype)
        if not (torch.is_grad_enabled() and wanted):
            return False
        if torch.compiler.is_compiling() or transforms_active():
            return False
        # A float16 gradient written before it is scaled, by a loss scale, would underflow.
        return self.wide or torch.float16 not in dtypes

    def loss(self, call: Any, reduction: str, backend: str) -> Tensor:
        """The loss of a call whose first results are losses and their weights."""
        sweeps = self.in_one_sweep(call, reduction, backend)
        if sweeps and self.implementation(backend).with_gradient:
            return self.swept.apply(*self.flat(call), reduction == "mean", backend)
        if reduction == "mean" and backend == "triton" and unwatched(call[0]):
            return self.mean.apply(*self.flat(call), backend)
        losses, weight = self(call, backend)[:2]
        return reduced(losses, weight, reduction)


def empty_pixels(features: Tensor) -> Tensor:
    """A number for every pixel, (B, P)."""
    shape = features.shape[0], features.shape[2]
    return features.new_empty(shape, dtype=accumulation_dtype(features))


def _register(name: str, arguments: Sequence[str], results: int, run: Callable[..., Any]) -> Any:
    returns = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    schema = f"({', '.join(arguments)}) -> {returns}"
    name = name if "::" in name else f"protocontrast::{name}"
    return torch.library.custom_op(name, run, mutates_args=(), schema=schema)


def _one(results: Sequence[Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _many(results: Any) -> Sequence[Tensor]:
    return (results,) if isinstance(results, Tensor) else results
