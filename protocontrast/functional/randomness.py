"""Random numbers that a generator can repeat, whatever device asks."""

import torch
from torch import Tensor

from protocontrast.checks import sentence


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1), drawn where the generator lives, on the device of `like`."""
    if generator is None:
        return torch.rand(shape, dtype=torch.float32, device=like.device)
    if not isinstance(generator, torch.Generator):
        requirement = "to be a torch.Generator"
        raise TypeError(sentence("generator", requirement, type(generator).__name__))
    drawn = torch.rand(shape, dtype=torch.float32, generator=generator, device=generator.device)
    return drawn.to(like.device)
