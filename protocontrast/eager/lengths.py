"""Lengths of vectors whose squares may leave the range of their dtype.

A length is first taken from squares as they are. Where one of them is out of a safe range, vectors
are divided by a power of two of about their own size: directions stay as they are, bit for bit.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SAFE_EXPONENT = {torch.float32: 40, torch.float64: 300}
"""Squared lengths of 2 to this power, and to its negative, leave room for products with others."""


class Lengths(NamedTuple):
    """A tile (D, n) over `size`, and one over the lengths (1, n) of that, 0 where they are 0.

    `size` (1, n) holds powers of two; None: 1 everywhere, and the tile is the one given.
    """

    block: Tensor
    inverse: Tensor
    size: Tensor | None


def sizes(values: Tensor, dim: int) -> Tensor:
    """The power of two below the largest magnitude along a dimension, kept; 1 for 0, inf, NaN."""
    largest = values.abs().amax(dim=dim, keepdim=True)
    usable = (largest > 0) & torch.isfinite(largest)
    return torch.exp2(torch.log2(torch.where(usable, largest, 1)).floor_())


def inverse_of(squared: Tensor) -> Tensor:
    """One over the square root, 0 where that is 0."""
    return squared.rsqrt().masked_fill_(squared == 0, 0)


def are_safe(squared: Tensor, block: Tensor) -> bool:
    """Whether squared lengths (1, n) of a tile (D, n) are good as they are; "no" off the CPU.

    On other devices an answer would make the host wait. What is NaN or infinite is good: it has no
    other length. 0 is good where the vector is 0, which is looked at where it occurs.
    """
    if squared.device.type != "cpu":
        return False
    if squared.numel() == 0:
        return True
    limit = 2.0 ** SAFE_EXPONENT[squared.dtype]
    low, high = map(float, torch.aminmax(squared))
    if 1 / limit <= low and high <= limit:
        return True
    good = ((squared >= 1 / limit) & (squared <= limit)) | squared.isnan()
    largest = block[:, ~good[0]].abs().amax(dim=0)
    return bool(((largest == 0) | (largest == torch.inf)).all())


def squares_of(block: Tensor) -> Tensor:
    """Squared lengths (1, n) of the columns of a tile (D, n).

    As a product with a row of ones their bits would depend on the number of threads.
    """
    return (block * block).sum(dim=0, keepdim=True)


def lengths(block: Tensor) -> Lengths:
    """Lengths of the columns of a tile (D, n).

    Divided by its size, a column has a squared length from 1 to 4 D.
    """
    squared = squares_of(block)
    if are_safe(squared, block):
        return Lengths(block, inverse_of(squared), None)
    size = sizes(block, 0)
    block = block / size
    return Lengths(block, inverse_of(squares_of(block)), size)


def unit_columns(block: Tensor) -> Tensor:
    """The columns of a tile (D, n) at unit length; zero stays zero."""
    scaled, inverse, _ = lengths(block)
    return scaled * inverse
