"""Losses of pixels as one: their sum, or that over the sum of their weights, in one launch."""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from protocontrast.kernels.launch import Launch, accumulating, options, run
from protocontrast.kernels.meta import constants

AT_ONCE = 4096
"""Numbers that a program has in flight."""

MOST = 2**16
"""Numbers above which torch adds them up beforehand, with more than one program."""


class Numbers(NamedTuple):
    """Any contiguous tensor, and how much it holds."""

    pointer: Any
    size: Any


def numbers_of(values: Tensor) -> Numbers:
    """As a single program takes them."""
    values = values.sum() if values.numel() > MOST else values
    return Numbers(values, values.numel())


@triton.jit
def total_of(numbers, META: tl.constexpr):
    """Their sum, BLOCK_P at a time."""
    total = tl.zeros([META.BLOCK_P], dtype=META.ACC)
    for start in range(0, numbers.size, META.BLOCK_P):
        offs = start + tl.arange(0, META.BLOCK_P)
        total += tl.load(numbers.pointer + offs, mask=offs < numbers.size, other=0.0)
    return tl.sum(total, axis=0)


@triton.jit
def store_number(pointer, number, ACC: tl.constexpr):
    """A number in a tensor ()."""
    tl.store(pointer + tl.arange(0, 1), tl.zeros([1], ACC) + number)


@triton.jit
def mean_kernel(losses, weights, mean, inverse, meta: tl.constexpr):
    """One program: the sum of losses over that of weights, and one over the latter, or over 1."""
    META: tl.constexpr = constants(meta)
    mass = total_of(weights, META)
    divisor = tl.where(mass == 0.0, 1.0, mass)
    store_number(mean, total_of(losses, META) / divisor, META.ACC)
    store_number(inverse, 1.0 / divisor, META.ACC)


def mean_of(losses: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted losses over the sum of their weights, (), and what each is multiplied by, ()."""
    mean, inverse = losses.new_empty(()), losses.new_empty(())
    meta = accumulating(losses, BLOCK_P=AT_ONCE)
    arguments = numbers_of(losses), numbers_of(weight), mean, inverse
    run(Launch(mean_kernel, 1, arguments, meta, options(8, 1)), losses)
    return mean, inverse
