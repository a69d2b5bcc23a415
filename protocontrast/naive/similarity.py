"""Similarities and logits of pixels and prototypes (M2), and which prototypes there are."""

import torch
from einops import rearrange, reduce
from torch import Tensor

from protocontrast.calls import LogitsCall


def sizes(values: Tensor) -> Tensor:
    """The power of two below the largest magnitude along the last dimension, which stays with one.

    1 where that is 0 or not finite. Divided by it, values can be squared: neither large nor tiny
    ones leave the range of their dtype. It is a constant to autograd: what is made of the quotients
    and multiplied back does not depend on it.
    """
    largest = values.detach().abs().amax(dim=-1, keepdim=True)
    usable = (largest > 0) & torch.isfinite(largest)
    return torch.exp2(torch.log2(torch.where(usable, largest, 1)).floor())


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their length; a row of zero length stays zero and has gradient zero."""
    rows = rows / sizes(rows)
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
    size = sizes(gaps)
    squared = reduce((gaps / size).square(), "n c d -> n c", "sum")
    apart = squared != 0
    length = torch.where(apart, squared, 1).sqrt() * rearrange(size, "n c 1 -> n c")
    return -torch.where(apart, length, 0)


def prototype_logits(call: LogitsCall, keep_absent: bool = False) -> Tensor:
    """(M2) z_ic = sim(f_i, p_c) / tau; an absent class has -inf, or cosine -1 where it is kept."""
    features, similarity = call.features, call.similarity
    present = present_rows(call.prototypes, call.present, similarity)
    readable = torch.where(rearrange(present, "c -> c 1"), call.prototypes, 0).to(features.dtype)
    scores = torch.where(present, similarities(features, readable, similarity), -1)
    logits = scores / call.temperature
    return logits if keep_absent else torch.where(present, logits, -torch.inf)
