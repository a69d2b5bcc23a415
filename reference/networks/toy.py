"""The small segmentation network of the toy runs: about 0.3 million parameters, output stride 4.

Two branches see every image: one stays at stride 4 and keeps thin objects, one goes to stride 8
and looks far with dilated convolutions. Both are joined into a 64-channel feature map, the place
where prototypes live, and a 1x1 convolution turns it into class logits.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.networks.output import ColourNormalisation, Domain, Output, Segmenter
from reference.networks.settings import ToyOptions

_STRIDE: Final = 4
_GROUPS: Final = 8


def _three(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)


def _convolution(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    # GroupNorm on purpose: batch statistics of target images would adapt the network by
    # themselves, and the comparison with the unadapted control would no longer be fair.
    norm = nn.GroupNorm(_GROUPS, outputs)
    return nn.Sequential(_three(inputs, outputs, stride, dilation), norm, nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, dilation=dilation)
        self.second = _three(width, width, dilation=dilation)
        self.norm = nn.GroupNorm(_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class SegmentationNetwork(Segmenter):
    """A fully convolutional network trained from random weights; widths are multiples of 8.

    Example:
        >>> network = SegmentationNetwork(ToyOptions(num_classes=5))
        >>> logits, features = network(torch.zeros(2, 3, 32, 48))
        >>> tuple(logits.shape), tuple(features.shape)
        ((2, 5, 8, 12), (2, 64, 8, 12))
    """

    kind = "toy"

    def __init__(self, options: ToyOptions) -> None:
        dim, classes = options.feature_dim, options.num_classes
        super().__init__(feature_dim=dim, num_classes=classes, stride=_STRIDE, align_corners=False)
        self._options = options
        stem, near, far = options.stem_width, options.near_width, options.far_width
        self.normalise = ColourNormalisation("imagenet")
        self.near = nn.Sequential(
            _convolution(3, stem, stride=2), _convolution(stem, near, stride=2),
            _convolution(near, near),
        )  # fmt: skip
        dilated = (_Residual(far, dilation) for dilation in options.dilations)
        self.far = nn.Sequential(_convolution(near, far, stride=2), *dilated)
        self.fuse = nn.Conv2d(near + far, dim, 1)
        self.head: nn.Module = nn.Conv2d(dim, classes, 1)

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        """Compute logits and features at stride 4, rounded up, the same for both domains."""
        near = self.near(self.normalise(images))
        size = near.shape[-2:]
        far = F.interpolate(self.far(near), size=size, mode="bilinear", align_corners=False)
        features = self.fuse(torch.cat([near, far], dim=1))
        return Output(self.head(features), features)
