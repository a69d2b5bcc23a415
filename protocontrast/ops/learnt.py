"""The contrast with a gradient to its temperature, composed of the logits' operator.

The logits (B, C, P) are held here, which the operator of the contrast never does.
"""

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall, LogitsCall
from protocontrast.ops.gradient import private_copy
from protocontrast.ops.logits import logits
from protocontrast.ops.masses import counted_share, masses, present_classes


def learnt_contrast(call: ContrastCall, backend: str, function: str) -> tuple[Tensor, Tensor]:
    """Loss and mass of every pixel and class, each (B, C, P)."""
    there = private_copy(present_classes(call))
    mass = masses(call, counted_share(call, there), function)
    valid = (mass != 0).any(dim=1, keepdim=True)
    # The gradient of a pixel that is NaN is NaN even where nothing comes back to it.
    read = torch.where(valid, call.features, 0)
    cosines = logits(LogitsCall(read, call.prototypes, there, call.similarity, 1.0), backend)
    lowest = -1.0 if call.keep_absent else 0.0
    scores = torch.where(there[:, None], cosines, lowest) / call.temperature
    if not call.keep_absent:
        scores = torch.where(there[:, None], scores, -torch.inf)
    lse = torch.where(valid, scores, 0).logsumexp(dim=1, keepdim=True)
    gap = lse - torch.where(mass == 0, 0, scores)
    return torch.where(mass == 0, 0, mass * gap), mass
