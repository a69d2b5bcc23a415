"""The small segmentation network of the toy runs: about 0.3 million parameters, output stride 4.

Two branches see every image: one stays at stride 4 and keeps thin objects, one goes to stride 8
and looks far with dilated convolutions. Their sum of knowledge is a 64-channel feature map, the
place where prototypes live, and a 1x1 convolution turns it into class logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.classes import NUM_CLASSES
from reference.networks.output import Domain, Output, Segmenter

STRIDE: Final = 4
_DEEPEST_STRIDE: Final = 8
_GROUPS: Final = 8


def _convolution(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    # GroupNorm on purpose: batch statistics of target images would adapt the network by
    # themselves, and the comparison with the unadapted control would no longer be fair.
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        ),
        nn.GroupNorm(_GROUPS, outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, dilation=dilation)
        self.second = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class SegmentationNetwork(Segmenter):
    """A fully convolutional network trained from random weights.

    The colour normalisation sits in two buffers, so a saved network cannot be evaluated with the
    wrong one.

    Args:
        stem_width: channels at stride 2; a multiple of 8.
        near_width: channels of the stride-4 branch; a multiple of 8.
        far_width: channels of the stride-8 branch; a multiple of 8.
        dilations: one residual block of the stride-8 branch per entry.
        feature_dim: channels D of the feature map.
        num_classes: channels of the logits.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB, H and W multiples of 8. Result: `Output`.

    Raises:
        ValueError: images of another shape.

    Example:
        >>> network = build_network(seed=0)
        >>> logits, features = network(torch.zeros(2, 3, 32, 48))
        >>> tuple(logits.shape), tuple(features.shape)
        ((2, 19, 8, 12), (2, 64, 8, 12))
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        stem_width: int = 24,
        near_width: int = 48,
        far_width: int = 64,
        dilations: Sequence[int] = (1, 2, 4),
        feature_dim: int = 64,
        num_classes: int = NUM_CLASSES,
    ) -> None:
        super().__init__(
            feature_dim=feature_dim, num_classes=num_classes, stride=STRIDE, align_corners=False
        )
        self._options = {
            "stem_width": stem_width,
            "near_width": near_width,
            "far_width": far_width,
            "dilations": list(dilations),
            "feature_dim": feature_dim,
            "num_classes": num_classes,
        }
        # The colour mean and spread of ImageNet, as in RGB recipes built on torchvision.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.near = nn.Sequential(
            _convolution(3, stem_width, stride=2),
            _convolution(stem_width, near_width, stride=2),
            _convolution(near_width, near_width),
        )
        self.far = nn.Sequential(
            _convolution(near_width, far_width, stride=2),
            *(_Residual(far_width, dilation) for dilation in dilations),
        )
        self.fuse = nn.Conv2d(near_width + far_width, feature_dim, 1)
        self.head: nn.Module = nn.Conv2d(feature_dim, num_classes, 1)

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that build this network anew, as JSON can hold them."""
        return dict(self._options)

    def colours(self) -> dict[str, Any]:
        """Return the colour normalisation in words and figures, for people who read a card."""
        return {
            "kind": "imagenet",
            "input": "RGB in [0, 1]",
            "channel_order": "RGB",
            "scale": 1.0,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        """Compute logits and features at stride 4, the same for both domains."""
        del domain
        height, width = images.shape[-2:]
        if images.ndim != 4 or height % _DEEPEST_STRIDE or width % _DEEPEST_STRIDE:
            raise ValueError(
                "SegmentationNetwork: expected images of shape (B, 3, H, W) with H and W multiples "
                f"of {_DEEPEST_STRIDE}, got {tuple(images.shape)}. Hint: choose the size with "
                "which the data are loaded."
            )
        near = self.near((images - self.mean) / self.std)
        far = F.interpolate(
            self.far(near), size=near.shape[-2:], mode="bilinear", align_corners=False
        )
        features = self.fuse(torch.cat([near, far], dim=1))
        return Output(self.head(features), features)


def unit_range(stored: Tensor) -> Tensor:
    """Turn stored images, uint8 0..255, into what the network reads, float32 in [0, 1]."""
    return stored.float() / 255.0


def build_network(*, seed: int, **options: Any) -> SegmentationNetwork:
    """Make a network whose random weights depend on `seed` and `options` alone.

    Args:
        seed: seed of the initial weights; torch's own random state is left as it was.
        options: keyword arguments of `SegmentationNetwork`.

    Returns:
        SegmentationNetwork: untrained, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegmentationNetwork(**options)
