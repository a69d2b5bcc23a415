"""Products of matrices and sums of many numbers whose order no number of threads changes.

The library below torch shares out the inner dimension of a product among threads where it is long,
and torch the terms of a sum; of a few hundred neither does. Products with a single row are shared
out at any length, so these are sums.
"""

import torch
from torch import Tensor

INNER = 512
"""Terms that a product adds up at once."""

TERMS = 2**14
"""Numbers that a sum adds up at once."""


def product(left: Tensor, right: Tensor) -> Tensor:
    """left (M, K) @ right (K, N)."""
    if left.device.type != "cpu":
        return left @ right
    if len(left) == 1:
        return (left.t() * right).sum(dim=0, keepdim=True)
    inner = left.shape[1]
    found = left[:, :INNER] @ right[:INNER]
    for start in range(INNER, inner, INNER):
        some = slice(start, start + INNER)
        found.addmm_(left[:, some], right[some])
    return found


def add_product(total: Tensor, left: Tensor, block: Tensor) -> None:
    """total (C, D) += left (C, n) @ block', the pixels of a tile (D, n) added up by class."""
    if left.device.type != "cpu":
        total.addmm_(left, block.t())
        return
    if len(left) == 1:
        total.add_((block * left).sum(dim=1))
        return
    for start in range(0, left.shape[1], INNER):
        some = slice(start, start + INNER)
        total.addmm_(left[:, some], block[:, some].t())


def total_of(values: Tensor) -> Tensor:
    """The sum of all, ()."""
    if values.device.type != "cpu" or values.numel() <= TERMS:
        return values.sum()
    return torch.stack([some.sum() for some in values.flatten().split(TERMS)]).sum()
