"""Inputs made on the device, and every operator as a function of them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import protocontrast as pc

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
IGNORE_INDEX = 255


class Scene(NamedTuple):
    """Features (B, D, H, W), labels (B, H, W) and prototypes (C, D)."""

    features: Tensor
    labels: Tensor
    prototypes: Tensor


Call = Callable[[Scene], list[Tensor]]


def make(
    shape: tuple[int, int, int, int],
    num_classes: int,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    layout: str = "NCHW",
    device: str = "cuda",
) -> Scene:
    """Random pixels and prototypes that require a gradient, a third of the pixels ignored."""
    random = torch.Generator(device).manual_seed(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    images, channels, height, width = shape
    prototypes = torch.randn(num_classes, channels, generator=random, device=device, dtype=wide)
    size = images, height, width
    labels = torch.randint(num_classes, size, generator=random, device=device)
    dropped = torch.rand(size, generator=random, device=device) < 0.3
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    features = torch.empty(shape, device=device, dtype=dtype, memory_format=memory)
    features.normal_(generator=random)
    return Scene(
        features.requires_grad_(),
        torch.where(dropped, IGNORE_INDEX, labels),
        prototypes.requires_grad_(),
    )


def _contrast(given: Scene) -> list[Tensor]:
    return [pc.pixel_prototype_contrast(*given)]


def _euclidean(given: Scene) -> list[Tensor]:
    loss = pc.pixel_prototype_contrast(*given, similarity="euclidean", temperature=1.0)
    return [loss]


def _logits(given: Scene) -> list[Tensor]:
    return [pc.prototype_logits(given.features, given.prototypes)]


def _means(given: Scene) -> list[Tensor]:
    return list(pc.class_prototypes(given.features, given.labels, len(given.prototypes)))


def _unit_means(given: Scene) -> list[Tensor]:
    classes = len(given.prototypes)
    stats = pc.class_prototypes(
        given.features, given.labels, classes, normalize=True, per_image=True
    )
    return list(stats)


def _transfer(given: Scene) -> list[Tensor]:
    return list(pc.transfer_labels(given.features, given.prototypes, threshold=0.3))


def _bidirectional(given: Scene) -> list[Tensor]:
    classes = len(given.prototypes)
    other = given.features.detach().flip(0)
    found = pc.bidirectional_contrast(
        given.features, given.labels, other, given.labels.flip(0), num_classes=classes
    )
    return list(found)


def _pairs(given: Scene) -> list[Tensor]:
    """Some pixels of the first image against those of the last, and prototypes."""
    channels, classes = given.features.shape[1], len(given.prototypes)
    rows = [given.features[i].reshape(channels, -1).t() for i in (0, -1)]
    labels = [given.labels[i].flatten() for i in (0, -1)]
    call = rows[0][:300], labels[0][:300], rows[1][:900], labels[1][:900]
    names = torch.arange(classes, device=given.labels.device)
    others = {"negatives": given.prototypes, "negative_labels": names}
    return [pc.pair_contrast(*call, **others, denominator="all", reduction="none")]


def _distribution(given: Scene) -> list[Tensor]:
    """The variance follows the prototypes, so that theirs is the gradient of both."""
    spread = given.prototypes.square().roll(1, dims=0)
    features, labels, means = given
    return [pc.distribution_contrast(features, labels, means, spread, temperature=1.0)]


def _upsampled(given: Scene) -> list[Tensor]:
    labels = given.labels.repeat_interleave(3, dim=1).repeat_interleave(2, dim=2)
    # The channels are classes here, and 255 is one of 300.
    labels = torch.where(labels == IGNORE_INDEX, -100, labels.long())
    features, known = given.features, {"ignore_index": -100}
    each = pc.upsampled_cross_entropy(features.detach(), labels, reduction="none", **known)
    return [pc.upsampled_cross_entropy(features, labels, **known), each]


CALLS: dict[str, Call] = {
    "contrast": _contrast,
    "euclidean contrast": _euclidean,
    "logits": _logits,
    "class means": _means,
    "unit class means": _unit_means,
    "transfer": _transfer,
    "bidirectional": _bidirectional,
    "pairs": _pairs,
    "distribution": _distribution,
    "upsampled": _upsampled,
}


def gradients(call: Call, given: Scene) -> list[Tensor]:
    """Results, and the gradients of the first to whatever it depends on."""
    results = call(given)
    found = [value.detach() for value in results]
    if results[0].requires_grad:
        # A gradient of ones would be the same for every element that a kernel mixes up.
        shape, top = results[0].shape, results[0]
        upstream = torch.linspace(-1, 1, max(1, top.numel()), device=top.device, dtype=top.dtype)
        leaves = [given.features, given.prototypes]
        dependent = torch.autograd.grad(top, leaves, upstream.reshape(shape), allow_unused=True)
        found += [value for value in dependent if value is not None]
    return found
