"""What is run: inputs, and for every operator its contenders on the same inputs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import protocontrast as pc
from benchmarks import contenders as plain
from benchmarks.peers import contrast_peers

LIBRARY = "protocontrast"
IMAGES = 2
LARGE, SMALL = (128, 256), (24, 48)
"""Height and width of the feature maps: a training crop at stride 4, and the demo's."""
RELEASED, RELEASED_LABELS = (91, 91), (730, 730)
"""Logits and labels of BiCL's released trainer."""
STRIDE = 4
"""Pixels of labels for one of logits in each direction, elsewhere."""
IGNORED_SHARE = 0.3
UNCLEAR_SHARE = 0.3
"""Share of pixels that are noise, so that label transfer leaves about as many out."""


class Inputs(NamedTuple):
    """Two domains' features (B, D, H, W), the first one's labels (B, H, W), prototypes (C, D).

    `upstream` is the gradient of the differentiated output; what requires grad says which gradients
    are taken.
    """

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    target: Tensor
    upstream: Tensor


Outputs = dict[str, Tensor]
Contender = Callable[[Inputs], Outputs]


@dataclass(frozen=True)
class Case:
    """One operator on one kind of input.

    Attributes:
        operator: a key of `OPERATORS`.
        gradient: what a gradient is taken to, "none" for values alone.
        channels: D.
        layout: "NCHW" or "channels_last".
        size: height and width of the feature map.
    """

    operator: str
    gradient: str
    channels: int
    layout: str = "NCHW"
    size: tuple[int, int] = LARGE

    @property
    def label_size(self) -> tuple[int, int]:
        """Height and width of the labels of upsampled logits."""
        if self.size == RELEASED:
            return RELEASED_LABELS
        return STRIDE * self.size[0], STRIDE * self.size[1]

    def __str__(self) -> str:
        height, width = self.size
        where = f"D={self.channels}, {height}x{width}, {self.layout}"
        return f"{self.operator}, gradient: {self.gradient}, {where}"


class Operator(NamedTuple):
    """Contenders by name, the library among them, and the output that can be differentiated.

    `tolerance` is the largest error over the largest value; float32 compositions stay below 4e-6 of
    it here, but where a comment says why.
    """

    contenders: dict[str, Contender]
    differentiated: str | None
    tolerance: float = 1e-5


def _loss(function: Callable[..., Tensor]) -> Contender:
    return lambda given: {"loss": function(given.features, given.labels, given.prototypes)}


def _library_contrast(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    return pc.pixel_prototype_contrast(features, labels, prototypes, temperature=plain.TEMPERATURE)


def _pair(
    names: tuple[str, str], arguments: tuple[str, ...]
) -> Callable[[Callable[..., tuple[Tensor, Tensor]]], Contender]:
    """How a function of these inputs becomes a contender with two outputs of these names."""
    return lambda function: (
        lambda given: dict(
            zip(names, function(*(getattr(given, name) for name in arguments)), strict=True)
        )
    )


_means = _pair(("mean", "count"), ("features", "labels"))
_labels = _pair(("labels", "confidence"), ("features", "prototypes"))
_step = _pair(("loss", "target_labels"), ("features", "labels", "target"))


def _library_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    mean, count = pc.class_prototypes(features, labels, plain.NUM_CLASSES)
    return mean, count


def _library_transfer(features: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    labels, confidence = pc.transfer_labels(
        features, prototypes, threshold=plain.THRESHOLD, temperature=plain.TEMPERATURE
    )
    return labels, confidence


def _upsampled(align_corners: bool) -> dict[str, Contender]:
    ours = partial(pc.upsampled_cross_entropy, align_corners=align_corners)
    eager = partial(plain.upsampled_cross_entropy, align_corners=align_corners)
    functions: dict[str, Callable[..., Tensor]] = {LIBRARY: ours, "eager": eager}
    return {
        name: lambda given, f=function: {"loss": f(given.features, given.labels)}
        for name, function in functions.items()
    }


UPSAMPLED = {"upsampled CE": False, "upsampled CE, corners": True}
"""Cross-entropy of upsampled logits, by `align_corners`; D counts the classes."""

OPERATORS = {
    "contrast": Operator(
        {
            LIBRARY: _loss(_library_contrast),
            "eager": _loss(plain.contrast),
            "tuned eager": _loss(plain.contrast_tuned),
        },
        "loss",
    ),
    "contrast, libraries": Operator(
        {LIBRARY: _loss(_library_contrast)}
        | {name: _loss(function) for name, function in contrast_peers().items()},
        "loss",
    ),
    "class_prototypes": Operator(
        {
            LIBRARY: _means(_library_means),
            "one-hot einsum": _means(plain.class_means_einsum),
            "one-hot bmm": _means(plain.class_means_bmm),
            "index_add": _means(plain.class_means_index_add),
        },
        "mean",
    ),
    "transfer_labels": Operator(
        {
            LIBRARY: _labels(_library_transfer),
            "eager": _labels(plain.transfer),
            "tuned eager": _labels(plain.transfer_tuned),
        },
        None,
    ),
    "bidirectional step": Operator(
        {
            LIBRARY: _step(plain.library_step),
            "eager": _step(plain.bidirectional_step),
            "tuned eager": _step(plain.bidirectional_step_tuned),
        },
        "loss",
    ),
    "BiCL step": Operator(
        {
            LIBRARY: _step(plain.bicl_step),
            "public functions": _step(plain.bicl_step_composed),
        },
        "loss",
    ),
    # With aligned corners F.interpolate takes its positions from a rounded float32 step.
    **{name: Operator(_upsampled(a), "loss", 5e-5 if a else 1e-5) for name, a in UPSAMPLED.items()},
}

CASES = [
    *(
        Case(operator, gradient, channels, layout)
        for operator, gradient, layout in [
            ("contrast", "features", "NCHW"),
            ("contrast", "features", "channels_last"),
            ("contrast", "features, loss x 0.5", "NCHW"),
            ("contrast", "features + prototypes", "NCHW"),
            ("contrast, libraries", "features + prototypes", "NCHW"),
            ("class_prototypes", "none", "NCHW"),
            ("class_prototypes", "none", "channels_last"),
            ("class_prototypes", "features", "NCHW"),
            ("transfer_labels", "none", "NCHW"),
            ("bidirectional step", "both features", "NCHW"),
            ("BiCL step", "both features", "NCHW"),
        ]
        for channels in (64, 256)
    ),
    *(Case(name, "features", plain.NUM_CLASSES) for name in UPSAMPLED),
    Case("upsampled CE", "features", plain.NUM_CLASSES, "channels_last"),
    *(Case(name, "features", plain.NUM_CLASSES, size=RELEASED) for name in UPSAMPLED),
    *(
        Case(operator, gradient, 64, size=SMALL)
        for operator, gradient in [
            ("contrast", "features"),
            ("class_prototypes", "none"),
            ("transfer_labels", "none"),
            ("bidirectional step", "both features"),
        ]
    ),
]


def _pixels(directions: Tensor, classes: Tensor, layout: str, random: torch.Generator) -> Tensor:
    """Features around their class's direction, a share of them noise alone.

    The noise is as long as the direction: nearer pixels would saturate the softmax, and differences
    of probabilities from 1 would have few digits left to compare.
    """
    clear = torch.rand(classes.shape, generator=random) >= UNCLEAR_SHARE
    rows = directions[classes] * clear[..., None]
    rows += torch.randn(rows.shape, generator=random)
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return rows.permute(0, 3, 1, 2).contiguous(memory_format=memory)


def resized(case: Case, size: tuple[int, int] | None) -> Case:
    """The case on a map of another size, or itself."""
    return case if size is None else replace(case, size=size)


def build(case: Case) -> Inputs:
    """The case's inputs in float32, the same ones in every process.

    Of upsampled logits, which stand in the features' place, labels are finer.
    """
    random = torch.Generator().manual_seed(0)
    pixels = (IMAGES, *case.size)
    shape = plain.NUM_CLASSES, case.channels
    directions = torch.randn(shape, generator=random)
    shifted = directions + 0.3 * torch.randn(shape, generator=random)
    classes = torch.randint(plain.NUM_CLASSES, (2, *pixels), generator=random)
    ignored = torch.rand(pixels, generator=random) < IGNORED_SHARE
    upstream = torch.tensor(0.5 if "x 0.5" in case.gradient else 1.0)
    if case.operator == "class_prototypes":
        upstream = torch.randn(shape, generator=random)
    labels = torch.where(ignored, plain.IGNORE_INDEX, classes[0])
    if case.operator in UPSAMPLED:
        fine = IMAGES, *case.label_size
        labels = torch.randint(case.channels, fine, generator=random)
        labels[torch.rand(fine, generator=random) < IGNORED_SHARE] = plain.IGNORE_INDEX
    inputs = Inputs(
        features=_pixels(directions, classes[0], case.layout, random),
        labels=labels,
        prototypes=directions,
        target=_pixels(shifted, classes[1], case.layout, random),
        upstream=upstream,
    )
    return asking(case, inputs)


def asking(case: Case, inputs: Inputs) -> Inputs:
    """The same inputs as leaves that require the case's gradients."""
    wanted = {
        "features": case.gradient != "none",
        "prototypes": "prototypes" in case.gradient,
        "target": case.gradient == "both features",
    }
    leaves = {
        name: value.detach().requires_grad_(wanted.get(name, False))
        for name, value in inputs._asdict().items()
    }
    return Inputs(**leaves)


def with_compiled(operator: Operator) -> Operator:
    """The operator with torch.compile of its plainest alternative among the contenders."""
    plainest = next(name for name in operator.contenders if name != LIBRARY)
    compiled = torch.compile(operator.contenders[plainest], dynamic=False)
    contenders = operator.contenders | {f"compiled {plainest}": compiled}
    return operator._replace(contenders=contenders)


def run(operator: Operator, contender: str, inputs: Inputs) -> Outputs:
    """Outputs and gradients by name, from one call and one backward."""
    outputs = operator.contenders[contender](inputs)
    leaves = {name: value for name, value in inputs._asdict().items() if value.requires_grad}
    if operator.differentiated is not None and leaves:
        top = outputs[operator.differentiated]
        gradients = torch.autograd.grad(top, list(leaves.values()), inputs.upstream)
        outputs |= {f"gradient of {k}": v for k, v in zip(leaves, gradients, strict=True)}
    return {name: value.detach() for name, value in outputs.items()}
