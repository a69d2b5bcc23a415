"""Similarities between pixels and prototypes (M2), and which prototypes there are."""

import torch
from einops import rearrange, reduce
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their length; a row of zero length stays zero and has gradient zero."""
    squared = reduce(rows.square(), "n d -> n 1", "sum")
    nonzero = squared != 0  # True for NaN, which must reach the result
    return torch.where(nonzero, rows * torch.where(nonzero, squared, 1).rsqrt(), 0)


def present_rows(prototypes: Tensor, present: Tensor | None, similarity: str) -> Tensor:
    """(C,) bool: the given presence, else every row, except all-zero rows under cosine."""
    if present is not None:
        return present
    if similarity == "cosine":
        return (prototypes != 0).any(dim=1)
    return torch.ones(len(prototypes), dtype=torch.bool, device=prototypes.device)


def similarities(features: Tensor, prototypes: Tensor, similarity: str) -> Tensor:
    """(M2) sim(f_i, p_c) for every pixel and prototype, (N, C)."""
    if similarity == "cosine":
        return torch.einsum("nd,cd->nc", unit_rows(features), unit_rows(prototypes))
    if similarity == "dot":
        return torch.einsum("nd,cd->nc", features, prototypes)
    gaps = rearrange(features, "n d -> n 1 d") - rearrange(prototypes, "c d -> 1 c d")
    squared = reduce(gaps.square(), "n c d -> n c", "sum")
    apart = squared != 0
    return -torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
