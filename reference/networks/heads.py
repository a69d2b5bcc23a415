"""Two heads that both go by the name DeepLab-V2: the plain sum, and ProDA's with GroupNorm."""

from typing import Final, cast

import torch
from torch import Tensor, nn

from reference.networks.output import Output

_RATES: Final = (6, 12, 18, 24)
_INITIAL_SPREAD: Final = 0.01
_WIDTH: Final = 256
_GROUPS: Final = 32
_SQUEEZE: Final = 16
_DROPOUT: Final = 0.1


class SumHead(nn.Module):
    """Four dilated 3x3 convolutions whose outputs are added: the head of DeepLab-V2, "dlv2".

    Its features are the outputs of the branches before the sum, side by side: what BiCL's
    released trainer takes its prototypes from (76 channels for 19 classes). Two branches, the
    rates 6 and 12 alone, run weights of AdaptSegNet and its copies, whose loop returned early.

    Source:
        Chen et al., DeepLab, arXiv 1606.00915.
    """

    def __init__(self, inputs: int, num_classes: int, *, branches: int = len(_RATES)) -> None:
        super().__init__()
        if branches not in (2, len(_RATES)):
            raise ValueError(
                f"SumHead: expected aspp_branches of {len(_RATES)}, or 2 for old weights, "
                f"got {branches}."
            )
        self.branches = nn.ModuleList(
            nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate)
            for rate in _RATES[:branches]
        )
        for convolution in self.branches:
            nn.init.normal_(cast(Tensor, convolution.weight), std=_INITIAL_SPREAD)
            nn.init.zeros_(cast(Tensor, convolution.bias))
        self.feature_dim = branches * num_classes

    def forward(self, x: Tensor) -> Output:
        """Compute logits and the branches side by side."""
        outputs = [branch(x) for branch in self.branches]
        return Output(sum(outputs[1:], outputs[0]), torch.cat(outputs, dim=1))


def _normalised(inputs: int, kernel: int, rate: int = 1) -> nn.Sequential:
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, _WIDTH, kernel, padding=padding, dilation=rate, bias=False),
        nn.GroupNorm(_GROUPS, _WIDTH),
    )


class _SqueezeExcite(nn.Module):
    """Weigh every channel by a gate that sees the mean over the whole map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, width // _SQUEEZE, 1)
        self.excite = nn.Conv2d(width // _SQUEEZE, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))


class GroupNormHead(nn.Module):
    """The head of ProDA and CPSL, "dlv2_gn": not the plain one, and part of their lead.

    A 1x1 and four dilated 3x3 convolutions of 256 channels with GroupNorm and ReLU, side by
    side; a squeeze-and-excitation gate; a 3x3 bottleneck to 256 channels with GroupNorm; channel
    dropout; a 1x1 classifier without bias. Its features are the 256 channels before the dropout.

    Source:
        Zhang et al., ProDA, CVPR 2021, as its release builds it; the gate's reduction of 16 is an
        own choice.
    """

    feature_dim = _WIDTH

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        views = [_normalised(inputs, 1), *(_normalised(inputs, 3, rate) for rate in _RATES)]
        self.branches = nn.ModuleList(nn.Sequential(*view, nn.ReLU(inplace=True)) for view in views)
        width = len(views) * _WIDTH
        self.gate = _SqueezeExcite(width)
        self.bottleneck = _normalised(width, 3)
        self.dropout = nn.Dropout2d(_DROPOUT)
        self.classifier = nn.Conv2d(_WIDTH, num_classes, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=_INITIAL_SPREAD)

    def forward(self, x: Tensor) -> Output:
        """Compute logits and the bottleneck's channels."""
        views = torch.cat([branch(x) for branch in self.branches], dim=1)
        features = self.bottleneck(self.gate(views))
        return Output(self.classifier(self.dropout(features)), features)
