"""Similarities over temperature (M2)."""

import torch
from einops import rearrange
from torch import Tensor

from protocontrast.naive.similarity import present_rows, similarities


def prototype_logits(
    features: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    similarity: str,
    temperature: float | Tensor,
    absent: str = "mask",
) -> Tensor:
    """(M2) z_ic = sim(f_i, p_c) / tau; an absent class has -inf ("mask") or cosine -1 ("floor")."""
    present = present_rows(prototypes, present, similarity)
    readable = torch.where(rearrange(present, "c -> c 1"), prototypes, 0).to(features.dtype)
    logits = torch.where(present, similarities(features, readable, similarity), -1) / temperature
    return torch.where(present, logits, -torch.inf) if absent == "mask" else logits
