"""Exponentials of logits less their peak, none of which underflows."""

import torch
from torch import Tensor

SMALLEST_EXPONENT = {torch.float32: -60.0, torch.float64: -600.0}
"""Beside exp(0), exp of this is nothing; times a weight it is still a normal number."""


def exp_of_differences_(exponents: Tensor) -> Tensor:
    """exp in place, of logits less their peak or log-sum-exp; what is next to 0 may stay above it.

    exp of what underflows, of -inf too, and products of denormal numbers take many times as long
    on a CPU as all others.
    """
    return exponents.clamp_min_(SMALLEST_EXPONENT[exponents.dtype]).exp_()
