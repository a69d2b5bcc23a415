"""How the losses of pixels become one."""

import torch
from torch import Tensor


def reduced(losses: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """Weighted losses as they are ("none"), summed, or ("mean") summed over the sum of weights.

    0 where all weights are 0, with a gradient of 0.
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    mass = weight.sum()
    return losses.sum() / torch.where(mass == 0, 1, mass)
