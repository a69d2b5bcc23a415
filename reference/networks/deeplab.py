"""DeepLab-V2: a dilated ResNet-101, and two heads that both go by its name.

The plain sum of dilated convolutions, and ProDA's with GroupNorm; a named place for the prototypes.
"""

from dataclasses import replace
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from reference.data.settings import refusal, require
from reference.networks import weights
from reference.networks.backbones import ResNet, TimmBackbone, check_choices
from reference.networks.output import ColourNormalisation, Domain, Output, Segmenter, seeded
from reference.networks.settings import DeepLabOptions, NetworkSettings

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

    Source: Chen et al., DeepLab, arXiv 1606.00915.
    """

    def __init__(self, inputs: int, num_classes: int, *, branches: int = len(_RATES)) -> None:
        super().__init__()
        wanted, ok = f"of {len(_RATES)}, or 2 for old weights", branches in (2, len(_RATES))
        require("SumHead", "aspp_branches", branches, wanted, ok)
        self.branches = nn.ModuleList(
            nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate)
            for rate in _RATES[:branches]
        )
        for convolution in self.branches:
            nn.init.normal_(cast(Tensor, convolution.weight), std=_INITIAL_SPREAD)
            nn.init.zeros_(cast(Tensor, convolution.bias))
        self.feature_dim = branches * num_classes

    def forward(self, x: Tensor) -> Output:
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
        views = torch.cat([branch(x) for branch in self.branches], dim=1)
        features = self.bottleneck(self.gate(views))
        return Output(self.classifier(self.dropout(features)), features)


def _backbone(options: DeepLabOptions) -> ResNet | TimmBackbone:
    name = options.backbone.removeprefix("timm/")
    if name == options.backbone:
        return ResNet(options)
    got = f"{options.stems!r} and {options.checkpointing}"
    wanted = f'"shared" and no checkpointing with the backbone {options.backbone!r}'
    ok = options.stems == "shared" and not options.checkpointing
    require("DeepLab", "stems", got, wanted, ok, "both need a resnet")
    return TimmBackbone(name, batch_norm=options.batch_norm)


def _head(options: DeepLabOptions, inputs: int) -> SumHead | GroupNormHead:
    own = "branches" if options.head == "dlv2" else "bottleneck"
    if options.features not in (own, "backbone", "projection"):
        wanted = f'"{own}", "backbone" or "projection" with the head {options.head!r}'
        raise refusal("DeepLab", "features", repr(options.features), wanted)
    if options.head == "dlv2":
        return SumHead(inputs, options.num_classes, branches=options.aspp_branches)
    return GroupNormHead(inputs, options.num_classes)


class DeepLab(Segmenter):
    """A backbone at stride 8 and one of two heads.

    The maps have about 1/8 of H and W; with Caffe's rounding up, one cell more on sizes that 8
    divides.

    Source: Chen et al., DeepLab, arXiv 1606.00915.
    """

    kind = "deeplab"

    def __init__(self, options: DeepLabOptions) -> None:
        check_choices("DeepLab", options)
        backbone = _backbone(options)
        width, dim = backbone.channels, options.projection_dim
        head = _head(options, width)
        sizes = {"backbone": width, "projection": dim}
        super().__init__(
            feature_dim=sizes.get(options.features, head.feature_dim), stride=backbone.stride,
            num_classes=options.num_classes, align_corners=options.align_corners,
        )  # fmt: skip
        self._options = options
        self.normalise = ColourNormalisation(options.normalisation)
        self.backbone = backbone
        self.head = head
        self.projection: nn.Module | None = None
        if options.features == "projection":
            first, last = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, dim, 1)
            self.projection = nn.Sequential(first, nn.ReLU(inplace=True), last)

    def options(self) -> dict[str, Any]:
        """Return the options as JSON can hold them, with what loaded weights brought along."""
        kind = self.normalise.kind()
        # The buffers bring numbers of their own kind; the name only starts them.
        brought = {} if kind == "custom" else {"normalisation": kind}
        return super().options() | {"align_corners": self.align_corners} | brought

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        deep = self.backbone(self.normalise(images), domain)
        logits, features = self.head(deep)
        if self.projection is not None:
            features = self.projection(deep)
        elif self._options.features == "backbone":
            features = deep
        return Output(logits, features)


def first_deeplab(
    settings: NetworkSettings, num_classes: int, seed: int
) -> tuple[Segmenter, weights.WeightReport | None]:
    """Build a DeepLab for a run, with the conventions of its weights; see `first_network`."""
    options = replace(settings.deeplab, num_classes=num_classes)
    if settings.weights is None:
        if not settings.random_weights:
            hint = "give --network.weights FILE (docs/data.md says where from), or "
            hint += "--network.random-weights, which costs most of the score"
            raise refusal("train", "a file", "none", "of pre-trained weights", hint)
        with seeded(seed):
            return DeepLab(options), None
    path, held = settings.weights, weights.read_weights(settings.weights)
    forced = settings.family != "auto"
    family = settings.family if forced else weights.family_of(held)
    options = weights.with_conventions(options, family, path, forced=forced)
    with seeded(seed):
        network = DeepLab(options)
    report = weights.fill_backbone(network, weights.translate(held, network), path, family=family)
    chosen = {name: getattr(options, name) for name in weights.FAMILIES[family]}
    return network, replace(report, set_options=chosen)
