"""The compiled library: whether there is one for this machine, and calls of it."""

import ctypes
from functools import cache
from pathlib import Path

import torch

from protocontrast.native import build
from protocontrast.native.calls import Call, Machine

PATH = Path(__file__).with_name(build.LIBRARY)
REBUILD = "python -m protocontrast.native compiles it, given a C compiler."

variant: int | None = None
"""The instruction set to call, as `build.X86` counts them; None: the widest there is."""


@cache
def loaded() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and what is missing."""
    if not PATH.is_file():
        return None, "that is compiled"
    try:
        library = ctypes.CDLL(str(PATH))
        library.protocontrast_digest.restype = ctypes.c_char_p
        library.protocontrast_variant.restype = ctypes.c_int64
        found = library.protocontrast_digest().decode()
    except (OSError, AttributeError):
        return None, "that was compiled for this machine"
    if found != build.digest():
        return None, "that was compiled from these sources"
    return library, ""


@cache
def widest() -> int:
    """The widest instruction set of library and processor."""
    library, _ = loaded()
    return 0 if library is None else int(library.protocontrast_variant())


def missing() -> str:
    """What the library would have to be, and is not; "" where there is one."""
    return loaded()[1]


# What torch.compiler.assume_constant_result sets; to call that would import the whole compiler.
missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def named() -> str:
    """The name of the instruction set that is called."""
    return build.variants()[widest() if variant is None else variant].name


def machine(wide: bool) -> Machine:
    """What every operator is told first; `wide` is float64 arithmetic."""
    return Machine(widest() if variant is None else variant, torch.get_num_threads(), wide)


def run(operator: str, call: Call) -> None:
    """Call C; MemoryError where it found none."""
    library, fault = loaded()
    if library is None:
        raise RuntimeError(f"protocontrast.native: expected a library {fault}. Hint: {REBUILD}")
    if getattr(library, f"protocontrast_{operator}")(ctypes.byref(call)):
        raise MemoryError(f"protocontrast.native: {operator} found no memory for its sums.")
