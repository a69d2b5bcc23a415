"""What a network says about a whole domain, and which labels it agrees with."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from reference.data.classes import IGNORE
from reference.networks.output import Output
from reference.networks.toy import SegmentationNetwork, unit_range

AT_ONCE: Final = 8


@torch.no_grad()
def whole_output(network: SegmentationNetwork, images: Tensor) -> Output:
    """The network's output on all images, uint8 (N, 3, H, W), without gradient."""
    parts = [network(unit_range(part)) for part in images.split(AT_ONCE)]
    return Output(torch.cat([p.logits for p in parts]), torch.cat([p.features for p in parts]))


def agreeing(labels: Tensor, logits: Tensor) -> Tensor:
    """Keep a label (B, h, w) where the class that logits (B, C, h, w) predict is the same."""
    return torch.where(logits.argmax(dim=1) == labels, labels, IGNORE)
