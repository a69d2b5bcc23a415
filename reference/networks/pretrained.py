"""What pretrained weights expect: their colours, in buffers, and BatchNorm trained so far only.

The colour normalisation travels with the weights and cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
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


@dataclass(frozen=True)
class Colours:
    """How RGB in [0, 1] becomes what a backbone reads: ``(scale * colour - mean) / std``.

    Args:
        scale: 1 or 255.
        mean: per channel, after scaling, in the order the backbone reads.
        std: per channel, likewise.
        bgr: whether the backbone reads blue first.
    """

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool


KINDS: Final = {
    # Of weights converted from Caffe: blue first, 0..255, and no division by a spread.
    "caffe": Colours(255.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0), True),
    "imagenet": Colours(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    # Of TensorFlow's networks, EfficientNet-Lite among them.
    "half": Colours(255.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), False),
    "none": Colours(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False),
}


class ColourNormalisation(nn.Module):
    """Bring RGB images into the colours a backbone was trained on.

    Args:
        kind: of `KINDS`. Weights loaded later bring their own.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB. Result: the same shape.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor
    bgr: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        colours = KINDS[kind]
        self.register_buffer("scale", torch.tensor(colours.scale))
        self.register_buffer("mean", torch.tensor(colours.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(colours.std).view(3, 1, 1))
        # Boolean, so that averaging all buffers of a network cannot round it to another value.
        self.register_buffer("bgr", torch.tensor(colours.bgr))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise; see the class for shapes."""
        ordered = torch.where(self.bgr, images.flip(1), images)
        return (ordered * self.scale - self.mean) / self.std

    def kind(self) -> str:
        """Return the name of what the buffers hold now, or "custom" where no kind fits."""
        held = self.state_dict()
        for name in KINDS:
            expected = ColourNormalisation(name).state_dict()
            if all(torch.equal(expected[key], held[key].cpu()) for key in expected):
                return name
        return "custom"

    def describe(self) -> dict[str, Any]:
        """Return the numbers in words and figures, for people who read a model card."""
        return {
            "kind": self.kind(),
            "input": "RGB in [0, 1]",
            "channel_order": "BGR" if bool(self.bgr) else "RGB",
            "scale": float(self.scale),
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List the BatchNorm layers inside a module."""
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


class WithBatchNorm(nn.Module):
    """A backbone that says what its BatchNorm layers do.

    Args:
        batch_norm: "trained"; "affine_frozen" stops the gradients of scale and shift while the
            statistics follow `train` and `eval`; "frozen" keeps the running statistics as well.
    """

    def __init__(self, batch_norm: str) -> None:
        super().__init__()
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
