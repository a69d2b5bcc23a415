"""Which GPUs the kernels are made for, and which releases of triton compile them there.

A table of what is refused, read before triton is imported. Whether a release waits for products
as it should is asked of what it compiles, by tests/ahead_of_time/in_flight.py: 3.6.0, 3.7.0, 3.7.1,
3.8.0 and 3.9.0 do, on sm_90 and sm_100, whatever the precision.
"""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm")
"""The same module under the names of its builds."""


class Refused(NamedTuple):
    """Capabilities and releases from the first to before the second, and what is wanted instead."""

    capabilities: tuple[tuple[int, int], tuple[int, int]]
    releases: tuple[tuple[int, int, int], tuple[int, int, int]]
    requirement: str
    hint: str


EVERY_GPU = ((0, 0), (99, 0))
EVERY_RELEASE = ((0, 0, 0), (99, 0, 0))

REFUSED: tuple[Refused, ...] = (
    Refused(
        EVERY_GPU,
        ((0, 0, 0), (3, 6, 0)),
        "that triton 3.6 or later compiles",
        'pip install "triton>=3.6", or take backend="eager".',
    ),
    # No row of tile sizes is for these, and they multiply no bfloat16.
    Refused(
        ((0, 0), (8, 0)),
        EVERY_RELEASE,
        "made for the GPU, which is one of capability 8.0 or higher",
        'backend="eager" runs on every GPU, whatever the release of triton.',
    ),
)


def installed_release() -> tuple[int, int, int] | None:
    """Of triton; None where it is not installed, or does not say."""
    for name in DISTRIBUTIONS:
        try:
            found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version(name))
        except PackageNotFoundError:
            continue
        if found is not None:
            first, second, third = map(int, found.groups("0"))
            return first, second, third
    return None


RELEASE = installed_release()


def capability(index: int | None) -> tuple[int, int] | None:
    """Of a CUDA device, the current one by default; None on AMD, and for tensors on paper."""
    return read_capability(index)


def read_capability(index: int | None) -> tuple[int, int] | None:
    """The same, asked of the driver."""
    if torch.version.hip or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(index)


# What torch.compiler.assume_constant_result sets; to call that would import the whole compiler.
capability._dynamo_marked_constant = True  # type: ignore[attr-defined]


def refusal(gpu: tuple[int, int] | None, release: tuple[int, int, int] | None) -> Refused | None:
    """The first row that both fall under; what is unknown falls under none that asks for it."""
    for row in REFUSED:
        of_gpu = row.capabilities == EVERY_GPU or _within(gpu, row.capabilities)
        of_release = row.releases == EVERY_RELEASE or _within(release, row.releases)
        if of_gpu and of_release:
            return row
    return None


def described(gpu: tuple[int, int] | None, release: tuple[int, int, int] | None) -> str:
    """The same two in words."""
    number = ".".join(map(str, release)) if release else "of no known release"
    return f"{number} on " + ("a GPU" if gpu is None else f"a GPU of capability {gpu[0]}.{gpu[1]}")


def _within(value: tuple[int, ...] | None, limits: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    return value is not None and limits[0] <= value < limits[1]
