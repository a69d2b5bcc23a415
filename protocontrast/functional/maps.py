"""Feature maps and label maps of two domains: what they must be, and how their classes compare."""

import torch
from torch import Tensor

from protocontrast.calls import accumulation_dtype
from protocontrast.checks import (
    LABEL_DTYPES,
    check_device,
    check_floating,
    check_integer,
    check_tensor,
    sentence,
)
from protocontrast.functional import hints


def check_feature_map(argument: str, features: Tensor, channels: int, reference: Tensor) -> None:
    """Features of images or volumes with D = `channels`, on the device of the `reference`."""
    check_floating(argument, features)
    shape = tuple(features.shape)
    if features.dim() not in (4, 5):
        requirement = "of shape (B, D, z, h, w) or (B, D, h, w)"
        hint = hints.map_of_tokens(argument, shape, channels)
        raise ValueError(sentence(argument, requirement, shape, hint))
    if shape[1] != channels:  # asked here, for a step is to make few calls
        check_dim(argument, features, channels)
    check_device(argument, features, reference, "the module's buffers")


def check_dim(argument: str, features: Tensor, dim: int) -> None:
    """Features of as many channels as a module was made for."""
    hint = "dim is the channel count of the features."
    check_channels(argument, features, dim, f"with D = {dim} channels", hint)


def check_channels(
    argument: str, values: Tensor, channels: int, requirement: str, hint: str = ""
) -> None:
    """ValueError unless dimension 1 is that long; a hint where the last one is."""
    shape = tuple(values.shape)
    if shape[1] != channels:
        hint = hints.channels_last(argument, shape, channels) or hint
        raise ValueError(sentence(argument, requirement, shape, hint))


def check_classes(argument: str, labels: Tensor, axes: int, num_classes: int | None) -> None:
    """TypeError unless an integer tensor; one-hot labels of a floating dtype get a hint."""
    check_tensor(argument, labels)
    if labels.is_floating_point():
        hint = hints.label_map(argument, tuple(labels.shape), axes, num_classes)
        raise TypeError(sentence(argument, "of an integer dtype", labels.dtype, hint))
    if labels.dtype not in LABEL_DTYPES:
        check_integer(argument, labels)


def check_label_map(argument: str, labels: Tensor, features: Tensor, num_classes: int) -> None:
    """Labels of any resolution, with as many axes as their features, on their device."""
    check_classes(argument, labels, features.dim() - 2, num_classes)
    shape, images = tuple(labels.shape), features.shape[0]
    if labels.dim() != features.dim() - 1 or shape[0] != images:
        axes = "H, W" if features.dim() == 4 else "Z, H, W"
        requirement = f"of shape ({images}, {axes}) for features {tuple(features.shape)}"
        hint = hints.label_map(argument, shape, features.dim() - 2, num_classes)
        raise ValueError(sentence(argument, requirement, shape, hint))
    check_device(argument, labels, features, "its features")


@torch.no_grad()
def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Pixels of each class, (..., C) int64, of labels (..., P) int64; others count nowhere."""
    if labels.device.type != "cpu":
        classes = torch.arange(num_classes, device=labels.device)[:, None]
        return (labels[..., None, :] == classes).sum(dim=-1)
    # A host adds one by one, and would compare each pixel with each class.
    key = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    counts = key.new_zeros(*key.shape[:-1], num_classes + 1)
    return counts.scatter_add(-1, key, torch.ones_like(key))[..., :-1]


@torch.no_grad()
def shares(of_source: Tensor, of_target: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Coverage of the target labels, (), and each class's share of them over its share of source.

    From the pixels of each class (C,), and how many pixels the target has. The second is (C,), 0
    where source has none of the class.
    """
    of_source, of_target = of_source.float(), of_target.float()
    coverage = of_target.sum() / max(pixels, 1)
    source_share = of_source / of_source.sum().clamp_min(1)
    target_share = of_target / of_target.sum().clamp_min(1)
    ratio = target_share / torch.where(of_source > 0, source_share, 1)
    return coverage, torch.where(of_source > 0, ratio, 0)


WHOLE_CLASS = 20
"""Pixels from which on a class weighs as much as any other.

One of fewer counts by its pixels, so that no single pixel, which may be labelled wrongly, is ever
more than a twentieth of a class.
"""


@torch.no_grad()
def target_counts(targets: Tensor, num_classes: int, features: Tensor) -> Tensor:
    """Pixels of each class per image, (B, C), of labels (B, ...) or soft targets (B, C, ...).

    Float32, or float64 for such features.
    """
    dtype = accumulation_dtype(features)
    if targets.is_floating_point():
        return targets.flatten(2).sum(dim=2, dtype=dtype)
    return class_counts(targets.flatten(1).long(), num_classes).to(dtype)


def equal_weights(counts: Tensor) -> Tensor:
    """(M18) class weights from the pixels of each class, (..., C)."""
    return counts.clamp_min(WHOLE_CLASS).reciprocal()


def equal_shares(counts: Tensor, shared: Tensor) -> Tensor:
    """(M18) what the summed loss of a class enters the balanced mean with, (..., C).

    Args:
        counts: pixels of each class, (..., C).
        shared: classes that carry loss, (C,) bool.
    """
    weight = torch.where(shared, equal_weights(counts), 0)
    total = (weight * counts).sum(dim=-1, keepdim=True)
    return weight / torch.where(total == 0, 1, total)
