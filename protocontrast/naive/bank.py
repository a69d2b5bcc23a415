"""What a bank and a bias do in one step (M9-M11)."""

import torch
from einops import rearrange
from torch import Tensor


def moving_average(old: Tensor, batch: Tensor, momentum: float, present: Tensor) -> Tensor:
    """(M9) momentum * old + (1 - momentum) * batch in the rows of present classes."""
    new = momentum * old + (1 - momentum) * batch
    return torch.where(rearrange(present, "c -> c 1"), new, old)


def calibrate(prototypes: Tensor, bias: Tensor, strength: float) -> Tensor:
    """(M11) every prototype moved by its class's domain bias."""
    return prototypes + strength * bias
