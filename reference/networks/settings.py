"""Settings of the networks. The comment above a field is its help on the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DeepLabOptions:
    """DeepLab-V2; the defaults are those of weights converted from Caffe."""

    # resnet14, resnet26, resnet50, resnet101, resnet152, or timm/NAME
    backbone: str = "resnet101"
    # dlv2: the plain sum of dilated convolutions; dlv2_gn: the head of ProDA
    head: Literal["dlv2", "dlv2_gn"] = "dlv2"
    # where prototypes live: branches (released, dlv2), bottleneck (dlv2_gn), backbone, projection
    features: Literal["branches", "bottleneck", "backbone", "projection"] = "branches"
    # channels of "projection"
    projection_dim: int = 128
    # channels of the logits; a run sets it to the number of its classes
    num_classes: int = 19
    # of dlv2; 2 only to run old weights
    aspp_branches: int = 4
    # colours that the backbone's weights were trained with
    normalisation: Literal["caffe", "imagenet", "none"] = "caffe"
    # how logits are upsampled: True for the Caffe family, else False
    align_corners: bool = True
    # stride in the 1x1 convolution, as in Caffe; False for torchvision and timm
    stride_in_1x1: bool = True
    # round up after max-pooling, as in Caffe; False for torchvision and timm
    ceil_mode: bool = True
    # per_domain: a conv1, bn1 and layer1 of the target's own (released)
    stems: Literal["shared", "per_domain"] = "shared"
    # trained, affine_frozen (released), frozen
    batch_norm: Literal["trained", "affine_frozen", "frozen"] = "affine_frozen"
    # recompute the backbone's blocks in the backward pass to save memory
    checkpointing: bool = False
    # channels after the first convolution; less than 64 is for tests
    width: int = 64


@dataclass(frozen=True)
class ToyOptions:
    """The small network of the drawn scenes, output stride 4; all own."""

    stem_width: int = 24
    near_width: int = 48
    far_width: int = 64
    # one residual block of the stride-8 branch per entry
    dilations: tuple[int, ...] = (1, 2, 4)
    feature_dim: int = 64
    # a run sets it to the number of its classes
    num_classes: int = 19


@dataclass(frozen=True)
class LiteOptions:
    """EfficientNet-Lite0 with a feature pyramid, output stride 4; all own."""

    feature_dim: int = 64
    # a run sets it to the number of its classes
    num_classes: int = 19
    # parts of the backbone that are not trained: 2 is the stem and the stages 0 and 1
    frozen_stages: int = 2


@dataclass(frozen=True)
class NetworkSettings:
    """What is trained, and from which weights."""

    # deeplab: DeepLab-V2; lite: EfficientNet-Lite0 with a pyramid; toy: a small one
    kind: Literal["deeplab", "lite", "toy"] = "deeplab"
    # file of ImageNet or DeepLab weights of the backbone (docs/data.md says where from)
    weights: Path | None = None
    # where they come from, if the file does not show it; sets colours, strides and corners
    family: Literal["auto", "caffe", "torchvision", "timm"] = "auto"
    # start without such a file, which costs most of the score
    random_weights: bool = False
    deeplab: DeepLabOptions = field(default_factory=DeepLabOptions)
    toy: ToyOptions = field(default_factory=ToyOptions)
    lite: LiteOptions = field(default_factory=LiteOptions)
