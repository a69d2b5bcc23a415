"""Two heads that both go by the name DeepLab-V2: the plain sum, and ProDA's with GroupNorm."""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn

from reference.networks.output import Output

RATES: Final = (6, 12, 18, 24)
INITIAL_SPREAD: Final = 0.01
GN_WIDTH: Final = 256
_GN_GROUPS: Final = 32
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

    def __init__(self, inputs: int, num_classes: int, *, branches: int = len(RATES)) -> None:
        super().__init__()
        if branches not in (2, len(RATES)):
            raise ValueError(
                f"SumHead: expected aspp_branches of {len(RATES)}, or 2 for old weights, "
                f"got {branches}."
            )
        convolutions = [
            nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate)
            for rate in RATES[:branches]
        ]
        for convolution in convolutions:
            nn.init.normal_(convolution.weight, std=INITIAL_SPREAD)
            nn.init.zeros_(cast(Tensor, convolution.bias))
        self.branches = nn.ModuleList(convolutions)
        self.feature_dim = branches * num_classes

    def forward(self, x: Tensor) -> Output:
        """Compute logits and the branches side by side."""
        outputs = [branch(x) for branch in self.branches]
        logits = outputs[0]
        for output in outputs[1:]:
            logits = logits + output
        return Output(logits, torch.cat(outputs, dim=1))


def _normalised(inputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, GN_WIDTH, kernel, padding=padding, dilation=dilation, bias=False),
        nn.GroupNorm(_GN_GROUPS, GN_WIDTH),
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

    feature_dim = GN_WIDTH

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        views = [_normalised(inputs, 1), *(_normalised(inputs, 3, rate) for rate in RATES)]
        self.branches = nn.ModuleList(nn.Sequential(*view, nn.ReLU(inplace=True)) for view in views)
        width = len(views) * GN_WIDTH
        self.gate = _SqueezeExcite(width)
        self.bottleneck = _normalised(width, 3)
        self.dropout = nn.Dropout2d(_DROPOUT)
        self.classifier = nn.Conv2d(GN_WIDTH, num_classes, 1, bias=False)
        nn.init.normal_(self.classifier.weight, std=INITIAL_SPREAD)

    def forward(self, x: Tensor) -> Output:
        """Compute logits and the bottleneck's channels."""
        views = torch.cat([branch(x) for branch in self.branches], dim=1)
        features = self.bottleneck(self.gate(views))
        return Output(self.classifier(self.dropout(features)), features)
