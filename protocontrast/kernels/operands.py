"""Device functions for the factors of matrix products: loads, lengths, float32 in 16-bit halves."""

import triton
import triton.language as tl


@triton.jit
def load_tile(image_ptr, stride_d, stride_p, offs_p, offs_d, pixels, D: tl.constexpr):
    """[BLOCK_P, BLOCK_D] of one image in its own dtype, 0 outside."""
    # The mask holds no value read from memory: one per pixel would forbid wide loads.
    return tl.load(
        image_ptr
        + offs_p[:, None].to(tl.int64) * stride_p
        + offs_d[None, :].to(tl.int64) * stride_d,
        mask=(offs_p[:, None] < pixels) & (offs_d[None, :] < D),
        other=0.0,
    )


@triton.jit
def square_root(value, ACC: tl.constexpr):
    """The square root, correctly rounded; the fast one takes tiny numbers for 0."""
    if ACC == tl.float32:
        return tl.sqrt_rn(value)
    else:
        return tl.sqrt(value)


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
def split(factor, NARROW: tl.constexpr):
    """Upper and lower half in a 16-bit dtype; together they hold 16 bits (bf16) or 22 (fp16)."""
    high = factor.to(NARROW)
    return high, (factor - high.to(tl.float32)).to(NARROW)


@triton.jit
def narrowed(value, NARROW: tl.constexpr):
    """In the dtype of a result, by way of float32: triton's interpreter makes rubbish of a float64
    number on its way into bfloat16."""
    if NARROW == tl.float64:
        return value.to(NARROW)
    else:
        return value.to(tl.float32).to(NARROW)


@triton.jit
def add_product(
    left, right, total, OPERANDS: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr
):
    """`total`, or nothing where that is None, and the product of two factors in ACC."""
    if OPERANDS == "wide":
        return tl.dot(left, right, total, input_precision=PRECISION, out_dtype=ACC)
    else:
        # Halves in bfloat16, whose exponents reach as far as float32's.
        high, low = split(left, tl.bfloat16)
        upper, lower = split(right, tl.bfloat16)
        total = tl.dot(high, upper, total, input_precision=PRECISION, out_dtype=ACC)
        if OPERANDS == "split":
            total = tl.dot(high, lower, total, input_precision=PRECISION, out_dtype=ACC)
            total = tl.dot(low, upper, total, input_precision=PRECISION, out_dtype=ACC)
        return total
