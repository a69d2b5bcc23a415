"""BatchNorm that is trained so far only, as pre-trained backbones want it; words of options."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_Self = TypeVar("_Self", bound="WithBatchNorm")


def check_choices(owner: str, options: Any) -> None:
    """Refuse a value of a settings object that is not among the words of its field's type."""
    hints = get_type_hints(type(options))
    for field in fields(options):
        words, value = get_args(hints[field.name]), getattr(options, field.name)
        if get_origin(hints[field.name]) is Literal and value not in words:
            known = " or ".join(f'"{word}"' for word in words)
            raise ValueError(f"{owner}: expected {field.name} {known}, got {value!r}.")


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


class WithBatchNorm(nn.Module):
    """A backbone that says what its BatchNorm layers do.

    Args:
        batch_norm: "trained"; "affine_frozen" stops the gradients of scale and shift while the
            statistics follow `train` and `eval`; "frozen" keeps the running statistics as well;
            "at_rest" keeps these alone.
    """

    def __init__(self, batch_norm: str) -> None:
        super().__init__()
        self.batch_norm = batch_norm

    def settle_batch_norm(self) -> None:
        """Stop what is to be stopped; to be called once all layers are there."""
        for norm in _batch_norms(self) if "frozen" in self.batch_norm else ():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self: _Self, mode: bool = True) -> _Self:
        """Switch to training; statistics that are kept stay in evaluation."""
        super().train(mode)
        for norm in _batch_norms(self) if self.batch_norm in ("frozen", "at_rest") else ():
            norm.eval()
        return self


@contextmanager
def statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch without moving the running statistics of BatchNorm."""
    # Recomputation must save the same tensors as the pass before, so the statistics stay part of
    # the computation and move by 0.
    norms = _batch_norms(module)
    held = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, held, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
