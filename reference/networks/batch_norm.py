"""How far BatchNorm is trained: all of it, its statistics alone, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = Literal["trained", "affine_frozen", "frozen"]

_Self = TypeVar("_Self", bound="WithBatchNorm")


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List the BatchNorm layers inside a module."""
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


class WithBatchNorm(nn.Module):
    """A backbone that says what its BatchNorm layers do.

    Args:
        batch_norm: "trained"; "affine_frozen" stops the gradients of scale and shift while the
            statistics follow `train` and `eval`; "frozen" keeps the running statistics as well.

    Raises:
        ValueError: another word.
    """

    def __init__(self, batch_norm: BatchNorm) -> None:
        super().__init__()
        if batch_norm not in get_args(BatchNorm):
            known = " or ".join(f'"{name}"' for name in get_args(BatchNorm))
            raise ValueError(f"DeepLab: expected batch_norm {known}, got {batch_norm!r}.")
        self.batch_norm = batch_norm

    def settle_batch_norm(self) -> None:
        """Stop what is to be stopped; to be called once all layers are there."""
        for norm in batch_norms(self):
            norm.requires_grad_(self.batch_norm == "trained")
        self.train(self.training)

    def train(self: _Self, mode: bool = True) -> _Self:
        """Switch to training; frozen statistics stay in evaluation."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for norm in batch_norms(self):
                norm.eval()
        return self


@contextmanager
def statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch without moving the running statistics of BatchNorm."""
    # Recomputation must save the same tensors as the pass before, so the statistics stay part of
    # the computation and move by 0.
    norms = batch_norms(module)
    held = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, held, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
