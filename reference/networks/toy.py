"""The small segmentation network of the toy runs: about 0.3 million parameters, output stride 4.

Two branches see every image: one stays at stride 4 and keeps thin objects, one goes to stride 8
and looks far with dilated convolutions. Both are joined into a 64-channel feature map, the place
where prototypes live, and a 1x1 convolution turns it into class logits.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.networks.output import Domain, Output, Segmenter
from reference.networks.settings import ToyOptions

STRIDE: Final = 4
_DEEPEST_STRIDE: Final = 8
_GROUPS: Final = 8
# The colour mean and spread of ImageNet, as in RGB recipes built on torchvision.
_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


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

    Args:
        options: widths, multiples of 8, and the number of classes.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB, H and W multiples of 8. Result: `Output`.

    Raises:
        ValueError: images of another shape.

    Example:
        >>> network = SegmentationNetwork(ToyOptions(num_classes=5))
        >>> logits, features = network(torch.zeros(2, 3, 32, 48))
        >>> tuple(logits.shape), tuple(features.shape)
        ((2, 5, 8, 12), (2, 64, 8, 12))
    """

    kind = "toy"
    mean: Tensor
    std: Tensor

    def __init__(self, options: ToyOptions | None = None) -> None:
        options = options or ToyOptions()
        super().__init__(
            feature_dim=options.feature_dim,
            num_classes=options.num_classes,
            stride=STRIDE,
            align_corners=False,
        )
        self._options = options
        stem, near, far = options.stem_width, options.near_width, options.far_width
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1))
        self.near = nn.Sequential(
            _convolution(3, stem, stride=2),
            _convolution(stem, near, stride=2),
            _convolution(near, near),
        )
        self.far = nn.Sequential(
            _convolution(near, far, stride=2),
            *(_Residual(far, dilation) for dilation in options.dilations),
        )
        self.fuse = nn.Conv2d(near + far, options.feature_dim, 1)
        self.head: nn.Module = nn.Conv2d(options.feature_dim, options.num_classes, 1)

    def options(self) -> dict[str, Any]:
        """Return the options as JSON can hold them."""
        return asdict(self._options) | {"dilations": list(self._options.dilations)}

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


def build_network(*, seed: int, **options: Any) -> SegmentationNetwork:
    """Make a network whose random weights depend on `seed` and `options` alone, for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SegmentationNetwork(ToyOptions(**options))
