"""What every network takes and gives, so that training and evaluation need not know which it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Domain = Literal["source", "target"]


class Output(NamedTuple):
    """What a network says about a batch of images.

    Shape:
        logits (B, C, h, w); features (B, D, h, w), signed and not normalised, the place where
        prototypes live. h and w are about H and W over the network's stride.
    """

    logits: Tensor
    features: Tensor


class Segmenter(nn.Module):
    """What every network here is: images in [0, 1] go in, an `Output` comes out.

    The colour normalisation sits in buffers and the corner convention in the state dict, so that
    saved weights cannot be evaluated with the wrong one of either.

    Args:
        feature_dim: channels D of the feature map.
        num_classes: channels C of the logits.
        stride: pixels of an image per cell of the maps, on each axis.
        align_corners: how the logits are to be upsampled, as in `torch.nn.functional.interpolate`.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB, all of one domain; a network with a stem per
        domain reads them with the one that is named, by default the target's. Result: `Output`.
    """

    kind: str = ""
    """Name that a description has for this class; a class without one cannot be described."""

    def __init__(
        self, *, feature_dim: int, num_classes: int, stride: int, align_corners: bool
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.num_classes = num_classes
        self.stride = stride
        self.align_corners = align_corners

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that build this network anew, as JSON can hold them."""
        raise NotImplementedError

    def colours(self) -> dict[str, Any]:
        """Return the colour normalisation in words and figures, for people who read a card."""
        raise NotImplementedError

    # A Python bool in the state dict: as a buffer, reading it would make the host wait for a GPU.
    def get_extra_state(self) -> Tensor:
        """Return the corner convention, as the state dict stores it."""
        return torch.tensor(self.align_corners)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the corner convention over from a loaded state dict."""
        self.align_corners = bool(state)


def unit_range(stored: Tensor) -> Tensor:
    """Turn stored images, uint8 0..255, into what networks read, float32 in [0, 1]."""
    return stored.float() / 255.0


def seeded(make: Callable[[], Segmenter], seed: int) -> Segmenter:
    """Build a network on the CPU whose random weights depend on `seed` alone.

    Torch's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


@torch.no_grad()
def upsampled_logits(network: Segmenter, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute logits and upsample them bilinearly, by the network's own corner convention.

    Shape:
        images (B, 3, h, w), float in [0, 1]. Result: (B, C, *size), float32.
    """
    logits = network(images).logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=network.align_corners)
