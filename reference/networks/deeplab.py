"""DeepLab-V2: a dilated ResNet-101, a head chosen by name, and a named place for the prototypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from reference.data.classes import NUM_CLASSES
from reference.networks.batch_norm import BatchNorm
from reference.networks.heads import RATES, GroupNormHead, SumHead
from reference.networks.normalisation import ColourNormalisation, Normalisation
from reference.networks.output import Domain, Output, Segmenter
from reference.networks.resnet import BLOCKS, ResNet, Stems
from reference.networks.timm_backbone import TimmBackbone

Head = Literal["dlv2", "dlv2_gn"]
Features = Literal["branches", "bottleneck", "backbone", "projection"]

TIMM_PREFIX: Final = "timm/"
_RESNET_PREFIX: Final = "resnet"


@dataclass(frozen=True)
class DeepLabOptions:
    """Every choice of a DeepLab-V2; the defaults are those of weights converted from Caffe.

    Args:
        backbone: "resnet" and a depth of 14, 26, 50, 101 or 152, such as "resnet101"; or "timm/"
            and a name that timm knows.
        head: "dlv2", the plain sum of dilated convolutions, or "dlv2_gn", the head of ProDA.
        features: where prototypes live: "branches" (the sum's terms side by side, 76 channels, as
            in BiCL's release; "dlv2" only), "bottleneck" (256 channels; "dlv2_gn" only),
            "backbone" (2048 channels) or "projection" (a small network of its own on the
            backbone's map).
        projection_dim: channels of "projection".
        num_classes: channels of the logits.
        aspp_branches: of "dlv2": 4; 2 only to run old weights.
        normalisation: "caffe", "imagenet" or "none"; must be that of the backbone's weights.
        align_corners: how logits are upsampled: True for the Caffe family, else False.
        stride_in_1x1: stride in the 1x1 convolution as in Caffe; False for torchvision and timm.
        ceil_mode: round up after max-pooling as in Caffe; False for torchvision and timm.
        stems: "shared", or "per_domain" for a conv1, bn1 and layer1 of the target's own.
        batch_norm: "trained", "affine_frozen" or "frozen"; see `WithBatchNorm`.
        checkpointing: recompute the backbone's blocks in the backward pass to save memory.
        width: channels after the first convolution; less than 64 is for tests. Like the two
            options of Caffe, it shapes a resnet and leaves a network of timm as it is.
    """

    backbone: str = "resnet101"
    head: Head = "dlv2"
    features: Features = "branches"
    projection_dim: int = 128
    num_classes: int = NUM_CLASSES
    aspp_branches: int = len(RATES)
    normalisation: Normalisation = "caffe"
    align_corners: bool = True
    stride_in_1x1: bool = True
    ceil_mode: bool = True
    stems: Stems = "shared"
    batch_norm: BatchNorm = "affine_frozen"
    checkpointing: bool = False
    width: int = 64


# What weights of torchvision and timm were trained with, where it differs from Caffe's.
TORCHVISION: Final = DeepLabOptions(
    normalisation="imagenet", align_corners=False, stride_in_1x1=False, ceil_mode=False
)


def _backbone(options: DeepLabOptions) -> ResNet | TimmBackbone:
    if options.backbone.startswith(TIMM_PREFIX):
        if options.stems != "shared" or options.checkpointing:
            raise ValueError(
                f'DeepLab: expected stems "shared" and no checkpointing with the backbone '
                f"{options.backbone!r}, got {options.stems!r} and {options.checkpointing}. "
                "Hint: both need a resnet."
            )
        name = options.backbone.removeprefix(TIMM_PREFIX)
        return TimmBackbone(name, batch_norm=options.batch_norm)
    names = [f"{_RESNET_PREFIX}{depth}" for depth in BLOCKS]
    if options.backbone not in names:
        raise ValueError(
            f'DeepLab: expected backbone {", ".join(names)} or "{TIMM_PREFIX}<name>", '
            f"got {options.backbone!r}."
        )
    return ResNet(
        int(options.backbone.removeprefix(_RESNET_PREFIX)),
        width=options.width,
        stride_in_1x1=options.stride_in_1x1,
        ceil_mode=options.ceil_mode,
        stems=options.stems,
        batch_norm=options.batch_norm,
        checkpointing=options.checkpointing,
    )


def _head(options: DeepLabOptions, inputs: int) -> SumHead | GroupNormHead:
    if options.head not in get_args(Head):
        raise ValueError(
            f'DeepLab: expected head "dlv2" or "dlv2_gn", got {options.head!r}. '
            'Hint: "dlv2" is the plain head of DeepLab-V2, "dlv2_gn" that of ProDA.'
        )
    own: Features = "branches" if options.head == "dlv2" else "bottleneck"
    if options.features not in (own, "backbone", "projection"):
        raise ValueError(
            f'DeepLab: expected features "{own}", "backbone" or "projection" with the head '
            f"{options.head!r}, got {options.features!r}."
        )
    if options.head == "dlv2":
        return SumHead(inputs, options.num_classes, branches=options.aspp_branches)
    return GroupNormHead(inputs, options.num_classes)


class DeepLab(Segmenter):
    """A backbone at stride 8 and one of two heads.

    Args:
        options: every choice.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB. Result: `Output`, at about 1/8 of H and W; with
        Caffe's rounding up, one cell more on sizes that 8 divides.

    Raises:
        ValueError: an unknown option, or two that do not go together.
        ImportError: a backbone of timm where timm cannot be imported.

    Source:
        Chen et al., DeepLab, arXiv 1606.00915.
    """

    def __init__(self, options: DeepLabOptions | None = None) -> None:
        options = options or DeepLabOptions()
        backbone = _backbone(options)
        head = _head(options, backbone.channels)
        sizes = {"backbone": backbone.channels, "projection": options.projection_dim}
        super().__init__(
            feature_dim=sizes.get(options.features, head.feature_dim),
            num_classes=options.num_classes,
            stride=backbone.stride,
            align_corners=options.align_corners,
        )
        self._options = options
        self.normalise = ColourNormalisation(options.normalisation)
        self.backbone = backbone
        self.head = head
        self.projection = (
            nn.Sequential(
                nn.Conv2d(backbone.channels, backbone.channels // 4, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(backbone.channels // 4, options.projection_dim, 1),
            )
            if options.features == "projection"
            else None
        )

    def options(self) -> dict[str, Any]:
        """Return the options as JSON can hold them, with what loaded weights brought along."""
        kind = self.normalise.kind()
        now = replace(self._options, align_corners=self.align_corners)
        # The buffers bring numbers of their own kind; the name only starts them.
        return asdict(now) | ({} if kind == "custom" else {"normalisation": kind})

    def colours(self) -> dict[str, Any]:
        """Return the colour normalisation in words and figures, for people who read a card."""
        return self.normalise.describe()

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        """Compute logits and features.

        Args:
            images: a batch of one domain.
            domain: whose stem reads them; without a stem per domain it makes no difference.
        """
        deep = self.backbone(self.normalise(images), domain)
        logits, features = self.head(deep)
        if self.projection is not None:
            features = self.projection(deep)
        elif self._options.features == "backbone":
            features = deep
        return Output(logits, features)


def seeded(make: Callable[[], Segmenter], seed: int) -> Segmenter:
    """Build a network whose random weights depend on `seed` alone.

    Args:
        make: builds it, on the CPU.
        seed: of the initial weights; torch's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def parameter_groups(
    network: nn.Module, learning_rate: float, *, head_factor: float = 10.0
) -> list[dict[str, Any]]:
    """Sort the trained parameters for an optimiser: the backbone at x1, the rest at x10.

    Args:
        network: its backbone, if it has one, is the submodule of that name.
        learning_rate: of the backbone, and of a network without one.
        head_factor: times `learning_rate` for everything beside the backbone.

    Returns:
        list: groups with "name", "params" and "lr"; frozen parameters are in none.
    """
    trained = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    backbone = [value for name, value in trained if name.startswith("backbone.")]
    rest = [value for name, value in trained if not name.startswith("backbone.")]
    if not backbone:
        return [{"name": "all", "params": rest, "lr": learning_rate}]
    return [
        {"name": "backbone", "params": backbone, "lr": learning_rate},
        {"name": "head", "params": rest, "lr": head_factor * learning_rate},
    ]
