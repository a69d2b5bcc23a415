"""What is run on a GPU: inputs there, and every operator beside eager torch and torch.compile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from benchmarks import contenders as plain
from benchmarks.inputs import IGNORED_SHARE, UNCLEAR_SHARE

LIBRARY, EAGER, COMPILED = "protocontrast", "eager", "torch.compile"
LAYOUTS = ("NCHW", "channels_last")
MODES = (("bfloat16", "highest"), ("float32", "medium"), ("float32", "highest"))
"""Dtype of the features and torch's float32 matmul precision; "medium" is tf32."""
GOAL_CLASSES = 19
# (B, H, W) and D: 262144 x 256, 262144 x 720 and 65536 x 2048 pixels by channels.
GOAL_SIZES = (((8, 128, 256), 256), ((8, 128, 256), 720), ((2, 128, 256), 2048))
# 51200 x 256 and 14400 x 2048, and many classes.
OTHER_SIZES = (
    ((2, 160, 160), 256, 19),
    ((1, 120, 120), 2048, 19),
    ((2, 160, 160), 256, 150),
    ((2, 160, 160), 256, 190),
)
# (B, h, w) of logits and (H, W) of labels: four times as large, and a ratio that is no integer.
UPSAMPLED_SIZES = (((2, 128, 256), (512, 1024)), ((2, 91, 91), (730, 730)))
UPSAMPLED_CLASSES = (19, 150)
UPSAMPLED = "upsampled_cross_entropy"
ALIGNED = f"{UPSAMPLED}_aligned"
"""With align_corners."""
BACKWARD, BOTH = "backward", "backward to both"
PASSES = {
    "contrast": ("forward", BACKWARD, BOTH),
    "class_prototypes": ("forward", BACKWARD),
    "transfer_labels": ("forward",),
    UPSAMPLED: ("forward", BACKWARD),
    ALIGNED: ("forward", BACKWARD),
}
FEATURES = tuple(operator for operator in PASSES if operator not in (UPSAMPLED, ALIGNED))
"""Operators of features and prototypes; the others read logits and finer labels."""


@dataclass(frozen=True)
class Case:
    """One operator on one kind of input; `goal` says whether a fraction of the bound is asked.

    Logits stand in the features' place, one channel per class; `label_size` is (H, W) of labels
    that are finer than the pixels.
    """

    operator: str
    images: tuple[int, int, int]
    channels: int
    classes: int
    dtype: str
    precision: str
    layout: str
    goal: bool
    label_size: tuple[int, int] | None = None

    @property
    def pixels(self) -> int:
        """N, over all images."""
        count, height, width = self.images
        return count * height * width

    @property
    def labels(self) -> tuple[int, int, int]:
        """Shape of the labels."""
        return self.images[0], *(self.label_size or self.images[1:])

    def __str__(self) -> str:
        size = f"{self.pixels}x{self.channels}, C={self.classes}"
        if self.label_size:
            size += f", labels {self.label_size[0]}x{self.label_size[1]}"
        return f"{self.operator}, {size}, {self.dtype} {self.precision}, {self.layout}"


def cases() -> list[Case]:
    """All cases, those asked for something first and the commonest first: time may run out."""
    found = []
    for layout in LAYOUTS:
        for dtype, precision in MODES:
            how = dtype, precision, layout
            for images, channels in GOAL_SIZES:
                found += [Case(o, images, channels, GOAL_CLASSES, *how, True) for o in FEATURES]
    found += upsampled_cases()
    for dtype, precision in MODES:
        for size in OTHER_SIZES:
            found += [Case(o, *size, dtype, precision, "NCHW", False) for o in FEATURES]
    return found


def upsampled_cases() -> list[Case]:
    """Those of logits and finer labels; nothing is multiplied, so no precision but the highest."""
    found = []
    for dtype in ("bfloat16", "float32"):
        for images, label_size in UPSAMPLED_SIZES:
            for classes in UPSAMPLED_CLASSES:
                case = Case(
                    UPSAMPLED, images, classes, classes, dtype, "highest", "NCHW", False, label_size
                )
                found += [case, replace(case, operator=ALIGNED)]
    return found


class Inputs(NamedTuple):
    """Features (B, D, H, W), labels (B, H, W), prototypes (C, D) float32.

    Or logits (B, C, h, w) and labels (B, H, W), and prototypes that nothing reads.
    """

    features: Tensor
    labels: Tensor
    prototypes: Tensor


Outputs = dict[str, Tensor]
Function = Callable[[Inputs], Outputs]


def _library_contrast(given: Inputs) -> Outputs:
    loss = pc.pixel_prototype_contrast(*given, temperature=plain.TEMPERATURE)
    return {"loss": loss}


def _library_means(given: Inputs) -> Outputs:
    classes = len(given.prototypes)
    return pc.class_prototypes(given.features, given.labels, classes)._asdict()


def _library_transfer(given: Inputs) -> Outputs:
    found = pc.transfer_labels(
        given.features,
        given.prototypes,
        threshold=plain.THRESHOLD,
        temperature=plain.TEMPERATURE,
    )
    return found._asdict()


def _library_upsampled(align_corners: bool) -> Function:
    def function(given: Inputs) -> Outputs:
        loss = pc.upsampled_cross_entropy(
            given.features,
            given.labels,
            ignore_index=plain.IGNORE_INDEX,
            align_corners=align_corners,
        )
        return {"loss": loss}

    return function


def _logits(given: Inputs) -> Tensor:
    """Products in the features' dtype, as under autocast, and everything after them in float32."""
    rows = given.prototypes.to(given.features.dtype)
    logits = plain.cosine_logits(given.features, rows)
    return logits if logits.dtype == torch.float64 else logits.float()


def _eager_contrast(given: Inputs) -> Outputs:
    loss = F.cross_entropy(_logits(given), given.labels, ignore_index=plain.IGNORE_INDEX)
    return {"loss": loss}


def _eager_means(given: Inputs) -> Outputs:
    means, counts = plain.class_means_einsum(given.features, given.labels, len(given.prototypes))
    return {"mean": means, "count": counts}


def _eager_transfer(given: Inputs) -> Outputs:
    with torch.no_grad():
        labels, confidence = plain.nearest(_logits(given))
    return {"labels": labels, "confidence": confidence}


def _eager_upsampled(align_corners: bool) -> Function:
    def function(given: Inputs) -> Outputs:
        loss = plain.upsampled_cross_entropy(given.features, given.labels, align_corners)
        return {"loss": loss}

    return function


LIBRARY_FUNCTIONS: dict[str, Function] = {
    "contrast": _library_contrast,
    "class_prototypes": _library_means,
    "transfer_labels": _library_transfer,
    UPSAMPLED: _library_upsampled(False),
    ALIGNED: _library_upsampled(True),
}
EAGER_FUNCTIONS: dict[str, Function] = {
    "contrast": _eager_contrast,
    "class_prototypes": _eager_means,
    "transfer_labels": _eager_transfer,
    UPSAMPLED: _eager_upsampled(False),
    ALIGNED: _eager_upsampled(True),
}
DIFFERENTIATED = {
    "contrast": "loss",
    "class_prototypes": "mean",
    UPSAMPLED: "loss",
    ALIGNED: "loss",
}


def functions(operator: str, compiled: bool) -> dict[str, Function]:
    """The operator's contenders by name."""
    found = {LIBRARY: LIBRARY_FUNCTIONS[operator], EAGER: EAGER_FUNCTIONS[operator]}
    if compiled:
        # Shapes of the case before would otherwise count as recompilations of this one.
        torch.compiler.reset()
        found[COMPILED] = torch.compile(EAGER_FUNCTIONS[operator], dynamic=False, fullgraph=True)
    return found


def build(case: Case, device: torch.device) -> Inputs:
    """Pixels around their class's direction, a share of them noise alone, a share ignored."""
    random = torch.Generator(device).manual_seed(0)
    normal = partial(torch.randn, generator=random, device=device)
    uniform = partial(torch.rand, generator=random, device=device)
    directions = normal(case.classes, case.channels)
    classes = torch.randint(case.classes, case.images, generator=random, device=device)
    clear = uniform(case.images) >= UNCLEAR_SHARE
    rows = directions[classes] * clear[..., None]
    rows += normal(rows.shape)
    memory = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    features = rows.to(getattr(torch, case.dtype)).permute(0, 3, 1, 2)
    if case.label_size:
        classes = torch.randint(case.classes, case.labels, generator=random, device=device)
    ignored = uniform(case.labels) < IGNORED_SHARE
    return Inputs(
        features.contiguous(memory_format=memory),
        torch.where(ignored, plain.IGNORE_INDEX, classes),
        directions,
    )


def asking(inputs: Inputs, direction: str) -> Inputs:
    """The same tensors as leaves that require the pass's gradients."""
    wanted = {"features": direction != "forward", "prototypes": direction == BOTH}
    return Inputs(
        *(v.detach().requires_grad_(wanted.get(n, False)) for n, v in inputs._asdict().items())
    )


def upstream_of(top: Tensor) -> Tensor:
    """The gradient that a backward starts from: 1 for a loss, else numbers of both signs."""
    if top.dim() == 0:
        return torch.ones_like(top)
    return torch.linspace(-1, 1, top.numel(), dtype=torch.float64).reshape(top.shape).to(top)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """torch's float32 matmul precision, put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
