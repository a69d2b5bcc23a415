"""Similarities over temperature (M2)."""

import torch
from einops import rearrange
from torch import Tensor

from protocontrast.calls import LogitsCall
from protocontrast.naive.similarity import present_rows, similarities


def prototype_logits(call: LogitsCall, keep_absent: bool = False) -> Tensor:
    """(M2) z_ic = sim(f_i, p_c) / tau; an absent class has -inf, or cosine -1 where it is kept."""
    features, similarity = call.features, call.similarity
    present = present_rows(call.prototypes, call.present, similarity)
    readable = torch.where(rearrange(present, "c -> c 1"), call.prototypes, 0).to(features.dtype)
    scores = torch.where(present, similarities(features, readable, similarity), -1)
    logits = scores / call.temperature
    return logits if keep_absent else torch.where(present, logits, -torch.inf)
