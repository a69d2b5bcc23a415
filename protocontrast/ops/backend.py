"""Which implementation a call runs on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from protocontrast import kernels, native
from protocontrast.checks import check_choice, sentence
from protocontrast.kernels import compilers
from protocontrast.native import library

BACKENDS = ("auto", "triton", "native", "eager", "naive")

HINT = 'backend="auto" takes the fastest implementation there is.'

active_modes = torch._C._len_torch_dispatch_stack
"""How many dispatch modes stand between a call and its kernels."""

default = "auto"
"""What "auto" stands for; another name within `standing_for_auto`."""


@contextmanager
def standing_for_auto(backend: str) -> Iterator[None]:
    """The backend of calls that leave the choice, within."""
    global default
    before, default = default, backend
    try:
        yield
    finally:
        default = before


def choose(backend: str, operator: str, features: Tensor, similarity: str = "cosine") -> str:
    """The backend by name; "auto" is Triton or native where one serves the call, else eager.

    A named choice never falls back: ValueError where it cannot run.
    """
    if type(backend) is not str or backend not in BACKENDS:  # asked here: a step makes few calls
        check_choice("backend", backend, BACKENDS)
    if backend == "auto":
        backend = default
    if backend in ("eager", "naive"):
        return backend
    if backend == "native":
        refused = _what_c_has_not(operator, features, similarity)
        if refused is not None:
            raise ValueError(sentence(*refused))
        return backend
    has_kernel = operator in kernels.OPERATORS
    refusal = None
    if features.is_cuda and has_kernel and kernels.AVAILABLE:
        gpu = compilers.capability(features.device.index)
        refusal = compilers.refusal(gpu, compilers.RELEASE)
        if refusal is None:
            return "triton"
    if backend == "auto":
        return "eager" if _what_c_has_not(operator, features, similarity) else "native"
    if not has_kernel:
        requirement = f"for which {operator} is implemented"
        raise ValueError(sentence("backend", requirement, "'triton'", HINT))
    if not kernels.AVAILABLE:
        hint = f"install triton (Linux: pip install triton), or {HINT}"
        requirement = "that is installed"
        raise ValueError(sentence("backend", requirement, "'triton'", hint))
    if not (features.is_cuda or (kernels.INTERPRETED and features.device.type == "cpu")):
        hint = f"{HINT} TRITON_INTERPRET=1 before the import runs kernels on CPU, slowly."
        requirement = "that runs where the features are"
        got = f"'triton' for features on {features.device}"
        raise ValueError(sentence("backend", requirement, got, hint))
    if refusal is not None:
        got = f"'triton' {compilers.described(gpu, compilers.RELEASE)}"
        raise ValueError(sentence("backend", refusal.requirement, got, refusal.hint))
    return "triton"


def _what_c_has_not(
    operator: str, features: Tensor, similarity: str
) -> tuple[str, str, str, str] | None:
    """The parts of the sentence that refuses this call, None where native serves it."""
    known = native.OPERATORS.get(operator)
    if known is None:
        return "backend", f"for which {operator} is implemented", "'native'", HINT
    if features.device.type not in ("cpu", "meta"):
        got = f"'native' for features on {features.device}"
        return "backend", "that runs where the features are", got, HINT
    if similarity not in known:
        requirement = f'to be {" or ".join(map(repr, known))} with backend="native"'
        return "similarity", requirement, repr(similarity), HINT
    missing = library.missing()
    if missing:
        return "backend", missing, "'native'", f"{library.REBUILD} Or take {HINT[:14]}."
    return None


def backends() -> dict[str, str]:
    """Of every backend by name: "usable", or why not."""
    found = dict.fromkeys(("triton", "native", "eager", "naive"), "usable")
    missing = library.missing()
    found["native"] = (
        f"not usable: expected a library {missing}. {library.REBUILD}"
        if missing
        else f"usable: {library.named()}"
    )
    refused = compilers.refusal(compilers.capability(None), compilers.RELEASE)
    if not kernels.AVAILABLE:
        found["triton"] = "not usable: triton is not installed"
    elif not (torch.cuda.is_available() or kernels.INTERPRETED):
        found["triton"] = "not usable: there is no GPU"
    elif refused is not None:
        found["triton"] = f"not usable: expected one {refused.requirement}. {refused.hint}"
    return found


def full_precision(features: Tensor) -> AbstractContextManager[Any]:
    """The operators choose their own precision, so an autocast region around them must not."""
    if features.is_meta or not torch.is_autocast_enabled(features.device.type):
        return nullcontext()
    return torch.autocast(features.device.type, enabled=False)


def transforms_active() -> bool:
    """Whether torch.func transforms (grad, vmap) surround the call."""
    return bool(torch._C._are_functorch_transforms_active())


def is_plain(value: Tensor) -> bool:
    """Whether a tensor has values that may be looked at: not fake, not batched by a transform."""
    batched = transforms_active() or torch._C._functorch.is_legacy_batchedtensor(value)
    return type(value) is Tensor and not batched


def unwatched(value: Tensor) -> bool:
    """Whether nothing stands between a call and its kernels: no program, mode or transform."""
    return (
        not torch.compiler.is_compiling()
        and active_modes() == 0
        and is_plain(value)
        and not value.is_meta
        and torch._C._get_tracing_state() is None
    )


def readable(value: Tensor) -> bool:
    """Whether the values of a tensor are at hand: on a CPU, and nothing stands before them."""
    return value.device.type == "cpu" and unwatched(value)
