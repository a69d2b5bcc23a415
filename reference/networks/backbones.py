"""Backbones at stride 8, as DeepLab-V2 uses them: ResNet, and any of timm's, which stays optional.

Parameters of ResNet carry the names that torchvision and timm use, so that their weights fit as
they are; its last two stages dilate instead of shrinking. BatchNorm is trained so far only.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from reference.data.settings import refusal
from reference.networks.output import Domain
from reference.networks.settings import DeepLabOptions

_Self = TypeVar("_Self", bound="WithBatchNorm")


def check_choices(owner: str, options: Any) -> None:
    """Refuse a value of a settings object that is not among the words of its field's type."""
    hints = get_type_hints(type(options))
    for field in fields(options):
        words, value = get_args(hints[field.name]), getattr(options, field.name)
        if get_origin(hints[field.name]) is Literal and value not in words:
            known = " or ".join(f'"{word}"' for word in words)
            raise refusal(owner, field.name, repr(value), known)


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


class WithBatchNorm(nn.Module):
    """A backbone that says what its BatchNorm layers do.

    Args:
        batch_norm: "trained"; "affine_frozen" stops the gradients of scale and shift while the
            statistics follow `train` and `eval`; "frozen" keeps the running statistics as well;
            "at_rest" keeps these alone.
    """

    def __init__(self, batch_norm: str) -> None:
        super().__init__()
        self.batch_norm = batch_norm

    def settle_batch_norm(self) -> None:
        """Stop what is to be stopped; to be called once all layers are there."""
        for norm in _batch_norms(self) if "frozen" in self.batch_norm else ():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self: _Self, mode: bool = True) -> _Self:
        """Switch to training; statistics that are kept stay in evaluation."""
        super().train(mode)
        for norm in _batch_norms(self) if self.batch_norm in ("frozen", "at_rest") else ():
            norm.eval()
        return self


@contextmanager
def statistics_at_rest(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch without moving the running statistics of BatchNorm."""
    # Recomputation must save the same tensors as the pass before, so the statistics stay part of
    # the computation and move by 0.
    norms = _batch_norms(module)
    held = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, held, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


# Bottleneck blocks per stage; 14 and 26 are for tests and small machines.
_BLOCKS: Final = {
    "resnet14": (1, 1, 1, 1), "resnet26": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3),
}  # fmt: skip
_EXPANSION: Final = 4
_STRIDES: Final = (1, 2, 1, 1)
_DILATIONS: Final = (1, 1, 2, 4)


def _one(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class _Bottleneck(nn.Module):
    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, *, stride_in_1x1: bool
    ) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _one(inputs, width, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _one(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shorter = _one(inputs, outputs, stride)
            self.downsample = nn.Sequential(shorter, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class _Stem(nn.Module):
    """Everything that a domain may have for itself: conv1, bn1 and layer1."""

    def __init__(self, width: int, layer1: nn.Sequential, *, ceil_mode: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=ceil_mode)
        self.layer1 = layer1


class ResNet(WithBatchNorm):
    """A bottleneck ResNet whose last feature map has 1/8 of the image's height and width.

    layer3 has dilation 2 and layer4 dilation 4 in all of their blocks. Caffe put the stride of
    layer2 into its first 1x1 convolution, torchvision and timm put it into the 3x3 one. With
    checkpointing the running statistics move once per step all the same.

    Shape:
        x (B, 3, H, W), normalised. Result: (B, 32 * width, h, w).

    Source: He et al., Deep Residual Learning, CVPR 2016; Chen et al., DeepLab, arXiv 1606.00915.
    """

    stride = 8

    def __init__(self, options: DeepLabOptions) -> None:
        super().__init__(options.batch_norm)
        name = options.backbone
        if name not in _BLOCKS:
            known = f'{", ".join(_BLOCKS)} or "timm/<name>"'
            raise refusal("DeepLab", "backbone", repr(name), known)
        width = options.width
        self.checkpointing = options.checkpointing
        self.channels = 8 * width * _EXPANSION
        block = partial(_Bottleneck, stride_in_1x1=options.stride_in_1x1)

        def stage(number: int) -> nn.Sequential:
            planes, dilation = width * 2**number, _DILATIONS[number]
            inputs = width if number == 0 else planes // 2 * _EXPANSION
            first = block(inputs, planes, _STRIDES[number], dilation)
            more = range(1, _BLOCKS[options.backbone][number])
            return nn.Sequential(
                first, *(block(planes * _EXPANSION, planes, 1, dilation) for _ in more)
            )

        shared = _Stem(width, stage(0), ceil_mode=options.ceil_mode)
        self.conv1, self.bn1, self.layer1 = shared.conv1, shared.bn1, shared.layer1
        self.relu, self.maxpool = shared.relu, shared.maxpool
        self.layer2, self.layer3, self.layer4 = stage(1), stage(2), stage(3)
        self.target: _Stem | None = None
        if options.stems == "per_domain":
            self.target = _Stem(width, stage(0), ceil_mode=options.ceil_mode)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.target is not None:
            # Both domains start alike.
            self.target.load_state_dict(shared.state_dict())
        self.settle_batch_norm()

    def _run(self, layer: nn.Sequential, x: Tensor) -> Tensor:
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return layer(x)
        for block in layer:
            # The statistics move in the pass before, not when the backward pass recomputes it.
            contexts = partial(lambda one: (nullcontext(), statistics_at_rest(one)), block)
            x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
        return x

    def forward(self, x: Tensor, domain: Domain = "target") -> Tensor:
        """Compute the last feature map with the stem of a domain, where each has its own."""
        stem = self if domain == "source" or self.target is None else self.target
        x = stem.maxpool(stem.relu(stem.bn1(stem.conv1(x))))
        for layer in (stem.layer1, self.layer2, self.layer3, self.layer4):
            x = self._run(layer, x)
        return x


class TimmBackbone(WithBatchNorm):
    """The last feature map of a network of timm at stride 8, with random weights."""

    def __init__(self, name: str, *, batch_norm: str = "affine_frozen") -> None:
        super().__init__(batch_norm)
        options = {"pretrained": False, "features_only": True, "output_stride": 8}
        try:
            timm = importlib.import_module("timm")
        # A torchvision that was built for another torch fails with RuntimeError, not ImportError.
        except (ImportError, RuntimeError) as error:
            raise ImportError(
                "TimmBackbone: expected timm and torchvision to be importable, got "
                f"{type(error).__name__}: {str(error).rstrip('.')}. Hint: install "
                "protocontrast[backbones] and the torchvision that belongs to the installed torch, "
                'or choose the backbone "resnet101", which needs neither.'
            ) from error
        try:
            self.model = timm.create_model(name, **options)
        except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
            got, wanted = f"{name!r} ({str(error).rstrip('.')})", "of timm at output stride 8"
            hint = "timm.list_models() lists the names"
            raise refusal("TimmBackbone", "a feature network", got, wanted, hint) from error
        self.channels = int(self.model.feature_info.channels()[-1])
        self.stride = int(self.model.feature_info.reduction()[-1])
        self.settle_batch_norm()

    def forward(self, x: Tensor, domain: Domain = "target") -> Tensor:
        """Compute the last feature map, the same for both domains."""
        return self.model(x)[-1]
