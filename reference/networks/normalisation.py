"""Colour normalisation in buffers: it travels with the weights and cannot be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

Normalisation = Literal["caffe", "imagenet", "none"]


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


KINDS: Final[dict[Normalisation, Colours]] = {
    # Of weights converted from Caffe: blue first, 0..255, and no division by a spread.
    "caffe": Colours(255.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0), True),
    "imagenet": Colours(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    "none": Colours(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False),
}


class ColourNormalisation(nn.Module):
    """Bring RGB images into the colours a backbone was trained on.

    Args:
        kind: "caffe" (BGR, 0..255, minus mean), "imagenet" (RGB, minus mean, over spread) or
            "none". Weights loaded later bring their own.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB. Result: the same shape.

    Raises:
        ValueError: an unknown kind.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor
    bgr: Tensor

    def __init__(self, kind: Normalisation) -> None:
        super().__init__()
        if kind not in KINDS:
            names = " or ".join(f'"{name}"' for name in get_args(Normalisation))
            raise ValueError(f"ColourNormalisation: expected kind {names}, got {kind!r}.")
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
