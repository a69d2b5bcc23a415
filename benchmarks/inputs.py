"""A case's inputs, the same ones in every process."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import IMAGES, Case
from benchmarks.contenders import IGNORE_INDEX

IGNORED_SHARE = 0.3
UNCLEAR_SHARE = 0.3
"""Share of pixels that are noise, so that label transfer leaves about as many out."""


class Inputs(NamedTuple):
    """Two domains' features (B, D, H, W) and labels (B, H, W), prototypes (C, D).

    Where nothing reads the target, it is the first domain's map.
    Of upsampled logits, which stand in the features' place, and of the released step labels are
    finer; soft labels are (B, C, H, W). `upstream` is the gradient of the differentiated output;
    what requires grad says which gradients are taken.
    """

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    target: Tensor
    target_labels: Tensor
    upstream: Tensor


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


def _ignoring(labels: Tensor, random: torch.Generator) -> Tensor:
    ignored = torch.rand(labels.shape, generator=random) < IGNORED_SHARE
    return torch.where(ignored, IGNORE_INDEX, labels)


def _soft(labels: Tensor, classes: int, random: torch.Generator) -> Tensor:
    """A distribution per valid pixel (B, C, H, W), zeros for an ignored one."""
    shape = len(labels), classes, *labels.shape[1:]
    shares = torch.randn(shape, generator=random).softmax(dim=1)
    return shares * (labels != IGNORE_INDEX)[:, None]


def build(case: Case) -> Inputs:
    """Features in the case's dtype; prototypes in float32, which hold values of that dtype."""
    random = torch.Generator().manual_seed(0)
    dtype = getattr(torch, case.dtype)
    pixels = (IMAGES, *case.size)
    shape = case.classes, case.channels
    directions = torch.randn(shape, generator=random)
    shifted = directions + 0.3 * torch.randn(shape, generator=random)
    classes = torch.randint(case.classes, (2, *pixels), generator=random)
    domains = (directions, shifted)[: 2 if case.gradient == "both features" else 1]
    maps = [
        _pixels(rows, members, case.layout, random).to(dtype)
        for rows, members in zip(domains, classes, strict=False)
    ]
    if case.finely_labelled:
        fine = 2, IMAGES, *case.label_size
        named = case.channels if case.operator.startswith("upsampled") else case.classes
        classes = torch.randint(named, fine, generator=random)
    labels, target_labels = (_ignoring(members, random) for members in classes)
    if case.operator == "contrast, soft":
        labels = _soft(labels, case.classes, random)
    upstream = torch.tensor(0.5 if "x 0.5" in case.gradient else 1.0)
    if case.operator == "class_prototypes":
        upstream = torch.randn(shape, generator=random)
    inputs = Inputs(
        features=maps[0],
        labels=labels,
        prototypes=directions.to(dtype).float(),
        target=maps[-1],
        target_labels=target_labels,
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


def maps_read(case: Case, inputs: Inputs) -> list[Tensor]:
    """The feature maps that the case reads: one domain's, of a step both."""
    both = case.gradient == "both features"
    return [inputs.features.detach(), *([inputs.target.detach()] if both else [])]
