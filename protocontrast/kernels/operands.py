"""Device functions for the factors of matrix products: lengths, float32 in 16-bit halves, and what
is finite."""

import triton
import triton.language as tl

from protocontrast.kernels import INTERPRETED

THIRD = tl.constexpr(tl.float32 if INTERPRETED else tl.bfloat16)
"""What holds a third of a float32 number; the interpreter multiplies bfloat16 as raw bits."""


@triton.jit
def square_root(value, ACC: tl.constexpr):
    """The square root, correctly rounded; the fast one takes tiny numbers for 0."""
    if ACC == tl.float32:
        return tl.sqrt_rn(value)
    else:
        return tl.sqrt(value)


@triton.jit
def finite(number):
    """Which numbers are neither NaN nor infinite."""
    return number - number == 0.0


@triton.jit
def dot(left, right, total, META: tl.constexpr):
    """`total`, or nothing where that is None, and the product of two factors as they are."""
    return tl.dot(left, right, total, input_precision=META.PRECISION, out_dtype=META.ACC)


@triton.jit
def unit_of(factor, NARROW: tl.constexpr):
    """What rows are divided by before rounding to 16 bits; the range of float16 is short."""
    if NARROW == tl.float16:
        return power_below(tl.max(tl.abs(factor), axis=1))[:, None]
    else:
        return 1.0


@triton.jit
def power_below(number):
    """The power of two below a positive float32; 1 for what has none."""
    power = (number.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    return tl.where((number > 1e-37) & (number < 3e38), power, 1.0)


@triton.jit
def times_pixel(unit, largest):
    """What a pixel is multiplied with whose slopes, the `largest` of them given, are over `unit`.

    One that pulls nothing is not to be the largest of those in float16.
    """
    return tl.where(largest > 1e-37, unit, 0.0)


@triton.jit
def split(factor, NARROW: tl.constexpr):
    """Upper and lower half in a 16-bit dtype; together they hold 16 bits (bf16) or 22 (fp16)."""
    high = factor.to(NARROW)
    return high, (factor - high.to(tl.float32)).to(NARROW)


@triton.jit
def upper_third(factor):
    """The upper 8 bits of float32 numbers. What is left has 16, whose upper third and rest are the
    other two: bfloat16 holds each, and so all three lose nothing."""
    return (factor.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def narrowed(value, NARROW: tl.constexpr):
    """In the dtype of a result, by way of float32: triton's interpreter makes rubbish of a float64
    number on its way into bfloat16."""
    if NARROW == tl.float64:
        return value.to(NARROW)
    else:
        return value.to(tl.float32).to(NARROW)


@triton.jit
def add_product(left, right, total, OPERANDS: tl.constexpr, META: tl.constexpr):
    """`total`, or nothing where that is None, and the product of two factors in ACC."""
    if OPERANDS == "wide":
        return dot(left, right, total, META)
    else:
        # Halves in bfloat16, whose exponents reach as far as float32's.
        high, low = split(left, tl.bfloat16)
        upper, lower = split(right, tl.bfloat16)
        total = dot(high, upper, total, META)
        if OPERANDS == "split":
            total = dot(high, lower, total, META)
            total = dot(low, upper, total, META)
        return total
