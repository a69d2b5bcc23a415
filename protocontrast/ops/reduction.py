"""How the losses of pixels become one."""

import torch
from torch import Tensor

from protocontrast.eager.products import product, total_of

__all__ = ["product", "reduced"]


def reduced(losses: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """Weighted losses as they are ("none"), summed, or ("mean") summed over the sum of weights.

    0 where all weights are 0, with a gradient of 0.
    """
    if reduction == "none":
        return losses
    # A compiled program is to hold one sum, whatever the shape.
    total = torch.sum if torch.compiler.is_compiling() else total_of
    if reduction == "sum":
        return total(losses)
    mass = total(weight)
    return total(losses) / torch.where(mass == 0, 1, mass)
