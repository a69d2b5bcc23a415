"""What kernels know when they are compiled, as one tuple."""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Meta(NamedTuple):
    """Constants of all kernels; each sets what it and its device functions read.

    `launch.plan` fills in arithmetic and tiles, for which `launch.arithmetic` says more.
    """

    ACC: Any
    OPERANDS: str = ""
    PRECISION: str = ""
    C: int = 0
    D: int = 0
    ROW: int = 0
    BLOCK_C: int = 0
    BLOCK_D: int = 0
    BLOCK_P: int = 0
    BLOCK_R: int = 0
    BLOCK_W: int = 0
    RUN: int = 0
    SENDS: int = 0
    PROGRAMS: int = 0
    SPAN: int = 0
    GROUP_D: int = 0
    SIMILARITY: str = "dot"
    NORMALIZE: bool = False
    UNWEIGHTED: bool = False
    BY_CHANNEL: bool = False
    IGNORE_INDEX: int = 0
    SPREAD_OPERANDS: str = ""
    # Of prototypes made ready.
    KEEP_ABSENT: bool = False
    EQUALS: bool = False
    # Of transfers.
    CONFIDENCE: bool = False
    TRANSFER: bool = False
    TWO_PRODUCTS: bool = False
    # Of banks: parts at once, means in place of sums, rows of unit length, a bias that begins as
    # it is measured, and pixels of a class that weighs as much as any other (0: all pixels do).
    BLOCK_S: int = 0
    MEANS: bool = False
    UNIT: bool = False
    COPY: bool = False
    WHOLE_CLASS: int = 0
    # Of pairs.
    ALL: bool = False
    EXCLUDE_SELF: bool = False
    OF_KEYS: bool = False
    # Of upsampled logits.
    ALIGNED: bool = False
    SMOOTHING: float = 0.0


@triton.constexpr_function
def named(meta: Any) -> Meta:
    """The constants by name: the interpreter of triton 3.6 hands a function their bare tuple."""
    return Meta(*meta)


@triton.constexpr_function
def constants(meta: Any, **changes: Any) -> Meta:
    """The constants as device functions read them, some of them changed.

    Each is a constexpr of its own: of a tuple that is one, triton 3.6 and 3.7 read bare numbers,
    which they do not take as the shape of a tensor.
    """
    return Meta(*map(tl.constexpr, named(meta)._replace(**changes)))
