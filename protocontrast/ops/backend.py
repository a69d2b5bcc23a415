"""Which implementation a call runs on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from protocontrast import kernels, native
from protocontrast.checks import check_choice, sentence
from protocontrast.kernels import compilers
from protocontrast.native import library

BACKENDS = ("auto", "triton", "native", "eager", "naive")


def choose(backend: str, operator: str, features: Tensor, similarity: str = "cosine") -> str:
    """The backend by name; "auto" is Triton for GPU tensors where there is a kernel, else eager.

    A named choice never falls back: ValueError where it cannot run.
    """
    check_choice("backend", backend, BACKENDS)
    has_kernel = operator in kernels.OPERATORS
    if backend in ("eager", "naive"):
        return backend
    if backend == "native":
        _refuse_what_c_has_not(operator, features, similarity)
        return backend
    refused = None
    if features.is_cuda and has_kernel and kernels.AVAILABLE:
        gpu = compilers.capability(features.device.index)
        refused = compilers.refusal(gpu, compilers.RELEASE)
        if refused is None:
            return "triton"
    if backend == "auto":
        return "eager"
    hint = 'backend="auto" takes the fastest implementation there is.'
    if not has_kernel:
        requirement = f"for which {operator} is implemented"
        raise ValueError(sentence("backend", requirement, "'triton'", hint))
    if not kernels.AVAILABLE:
        hint = f"install triton (Linux: pip install triton), or {hint}"
        requirement = "that is installed"
        raise ValueError(sentence("backend", requirement, "'triton'", hint))
    if not (features.is_cuda or (kernels.INTERPRETED and features.device.type == "cpu")):
        hint = f"{hint} TRITON_INTERPRET=1 before the import runs kernels on CPU, slowly."
        requirement = "that runs where the features are"
        got = f"'triton' for features on {features.device}"
        raise ValueError(sentence("backend", requirement, got, hint))
    if refused is not None:
        got = f"'triton' {compilers.described(gpu, compilers.RELEASE)}"
        raise ValueError(sentence("backend", refused.requirement, got, refused.hint))
    return "triton"


def _refuse_what_c_has_not(operator: str, features: Tensor, similarity: str) -> None:
    """ValueError unless native serves this call."""
    hint = 'backend="auto" takes the fastest implementation there is.'
    if operator not in native.OPERATORS:
        requirement = f"for which {operator} is implemented"
        raise ValueError(sentence("backend", requirement, "'native'", hint))
    if features.device.type not in ("cpu", "meta"):
        got = f"'native' for features on {features.device}"
        requirement = "that runs where the features are"
        raise ValueError(sentence("backend", requirement, got, hint))
    if similarity not in native.SIMILARITIES:
        names = " or ".join(map(repr, native.SIMILARITIES))
        requirement = f'to be {names} with backend="native"'
        raise ValueError(sentence("similarity", requirement, repr(similarity), hint))
    missing = library.missing()
    if missing:
        hint = f"{library.REBUILD} Or take {hint[:14]}."
        raise ValueError(sentence("backend", missing, "'native'", hint))


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
    if features.is_meta:
        return nullcontext()
    return torch.autocast(features.device.type, enabled=False)


def transforms_active() -> bool:
    """Whether torch.func transforms (grad, vmap) surround the call."""
    return bool(torch._C._are_functorch_transforms_active())


def is_plain(value: Tensor) -> bool:
    """Whether a tensor has values that may be looked at: not fake, not batched by a transform."""
    batched = transforms_active() or torch._C._functorch.is_legacy_batchedtensor(value)
    return type(value) is Tensor and not batched
