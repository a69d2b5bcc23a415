"""What calls can run on here, and what they run on: `backends` and `default_backend`."""

from contextlib import AbstractContextManager

from protocontrast.checks import check_choice, public
from protocontrast.functional.settings import Backend
from protocontrast.ops.backend import BACKENDS, standing_for_auto
from protocontrast.ops.backend import backends as _backends


def backends() -> dict[str, str]:
    """Every backend by name, and whether it is usable on this machine.

    Returns:
        For each name that the argument `backend` takes, but for "auto": "usable", "usable: ..."
        with the instruction set that was chosen, or "not usable: ..." with the reason. It is about
        the machine: a usable backend may lack an operator or run on other devices, which a call
        then says.

    Example:
        >>> backends()["naive"]
        'usable'
    """
    return _backends()


@public
def default_backend(backend: Backend) -> AbstractContextManager[None]:
    """What "auto" stands for in a block of code, in all threads of the process.

    Backends differ in the last bits. A program that is to give the same bits on machines with and
    without a compiled library names one, once for all of its calls:

        with default_backend("eager"):
            ...

    Args:
        backend: an implementation by name, which then never falls back, or "auto" for the fastest
            there is.

    Returns:
        A context manager. Calls and modules that were given another name than "auto" keep it, and
        a backward pass takes the backend of its forward pass, wherever it runs.

    Raises:
        ValueError: a name that is no backend.

    Example:
        >>> import torch, protocontrast as pc
        >>> rows = torch.eye(2)
        >>> with pc.default_backend("eager"):
        ...     logits = pc.prototype_logits(rows, rows, temperature=1.0)
        >>> logits.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    check_choice("backend", backend, BACKENDS)
    return standing_for_auto(backend)
