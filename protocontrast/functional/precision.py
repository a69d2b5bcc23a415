"""The widest floats that a device has: float64, but on Apple's GPUs."""

import torch
from torch import Tensor


def has_float64(device: torch.device) -> bool:
    """Whether tensors of float64 may lie on the device."""
    return device.type != "mps"


def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 where there is none: it counts to 2^24 and adds up with fewer digits."""
    return torch.float64 if has_float64(device) else torch.float32


def widest(value: Tensor) -> Tensor:
    """The value in the widest floats of its device."""
    return value.to(widest_dtype(value.device))


def smallest(value: Tensor) -> float:
    """A divisor in the value's dtype that no count above 0 is below."""
    return max(1e-300, torch.finfo(value.dtype).tiny)
