"""The pixel layouts all functions take, and the one shape the operators see.

features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D) become (B, D, P) without a copy where
strides allow; labels and weights (B, Z, H, W), (B, H, W), (B, P) or (N,) become (B, P); soft
targets follow their features.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from protocontrast.checks import (
    check_device,
    check_floating,
    check_ignore_index,
    check_integer,
    check_no_grad,
    check_shape,
    check_tensor,
    sentence,
)
from protocontrast.functional import hints
from protocontrast.ops.labels import checked_labels


class Pixels(NamedTuple):
    """Features as (B, D, P), and the pixels' own shape, such as (B, H, W) or (N,)."""

    argument: str
    original: Tensor
    features: Tensor
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """D."""
        return self.features.shape[1]

    def flattened(self, values: Tensor) -> Tensor:
        """Values of the pixels' own shape as (B, P)."""
        return values.reshape(self.features.shape[0], self.features.shape[2])

    def restored(self, values: Tensor) -> Tensor:
        """Values (B, P) in the pixels' own shape."""
        return values.reshape(self.shape)


def read_features(features: Tensor, argument: str = "features") -> Pixels:
    """Check features and bring them to (B, D, P); TypeError or ValueError says what is wrong."""
    check_floating(argument, features)
    if features.dim() in (2, 3, 4, 5) and features.shape[1] == 0:
        requirement = "with at least one channel"
        raise ValueError(sentence(argument, requirement, tuple(features.shape)))
    if features.dim() in (4, 5):
        shape = (features.shape[0], *features.shape[2:])
        return Pixels(argument, features, features.flatten(2), tuple(shape))
    if features.dim() == 3:
        shape = (features.shape[0], features.shape[2])
        return Pixels(argument, features, features, shape)
    if features.dim() == 2:
        rows = features.t().unsqueeze(0)
        return Pixels(argument, features, rows, (features.shape[0],))
    requirement = "of shape (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D)"
    raise ValueError(sentence(argument, requirement, tuple(features.shape)))


def comparable(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Labels in a dtype that can hold `ignore_index` and the number of classes.

    In another one a comparison with them wraps: 300 is 44 among uint8.
    """
    if labels.dtype in (torch.uint8, torch.int32, torch.int64):
        limits = torch.iinfo(labels.dtype)
        if limits.min <= ignore_index <= limits.max and num_classes <= limits.max:
            return labels
    return labels.long()


def read_labels(pixels: Pixels, labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Hard labels as (B, P); `ignore_index` may not be a class."""
    check_ignore_index(ignore_index, num_classes)
    check_tensor("labels", labels)
    if labels.is_floating_point():
        hint = hints.one_per_pixel("labels", tuple(labels.shape), pixels.shape, num_classes)
        requirement = "of an integer dtype"
        raise TypeError(sentence("labels", requirement, labels.dtype, hint))
    check_integer("labels", labels)
    check_pixelwise(pixels, "labels", labels, num_classes)
    return pixels.flattened(comparable(labels, num_classes, ignore_index))


def read_targets(pixels: Pixels, labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Hard labels as (B, P), or soft targets as (B, C, P)."""
    check_tensor("labels", labels)
    if not labels.is_floating_point():
        return read_labels(pixels, labels, num_classes, ignore_index)
    check_floating("labels", labels)
    check_no_grad("labels", labels)
    if len(pixels.shape) == 1:
        shape: tuple[int, ...] = (pixels.shape[0], num_classes)
    else:
        shape = (pixels.shape[0], num_classes, *pixels.shape[1:])
    hint = "hard labels need an integer dtype; soft targets have one channel per prototype."
    got = tuple(labels.shape)
    # Asked only of a wrong shape: what is asked of a size is a guard in a program of any size.
    if got != shape and got == (*pixels.shape, num_classes):
        hint = "the classes of soft targets are dimension 1: labels.movedim(-1, 1)."
    reason = f"for features {tuple(pixels.original.shape)} and {num_classes} prototypes"
    check_shape("soft labels", labels, shape, reason, hint)
    check_device("labels", labels, pixels.original, pixels.argument)
    if len(pixels.shape) == 1:
        return rearrange(labels, "n c -> 1 c n")
    return labels.flatten(2)


def read_pixel_weight(
    pixels: Pixels, weight: Tensor | None, to: str = "features and prototypes"
) -> Tensor | None:
    """Weights of pixels as (B, P); `to` says what gets a gradient in their place."""
    if weight is None:
        return None
    check_floating("pixel_weight", weight)
    check_no_grad("pixel_weight", weight, to)
    check_pixelwise(pixels, "pixel_weight", weight)
    return pixels.flattened(weight)


def check_pixelwise(
    pixels: Pixels, argument: str, value: Tensor, num_classes: int | None = None
) -> None:
    """Shape and device of something that has one value per pixel."""
    got, original = tuple(value.shape), tuple(pixels.original.shape)
    if got != pixels.shape:
        hint = hints.one_per_pixel(argument, got, pixels.shape, num_classes)
        if not hint and got == original[:-1]:
            hint = hints.channels_last(pixels.argument, original, original[-1])
        if not hint and argument.endswith("labels") and len(got) == len(pixels.shape) > 2:
            hint = hints.GRID
        requirement = f"of shape {pixels.shape} as in {pixels.argument} {original}"
        raise ValueError(sentence(argument, requirement, got, hint))
    check_device(argument, value, pixels.original, pixels.argument)


def check_prototypes(pixels: Pixels, prototypes: Tensor, argument: str = "prototypes") -> None:
    """Prototypes (C, D) with the features' D and device, C at least 1."""
    check_floating(argument, prototypes)
    shape = tuple(prototypes.shape)
    if prototypes.dim() != 2 or shape[1] != pixels.channels:
        requirement = (
            f"of shape (C, D) with D = {pixels.channels} as in {pixels.argument} "
            f"{tuple(pixels.original.shape)}"
        )
        hint = "use the bank built for these features."
        if prototypes.dim() == 2:
            original = tuple(pixels.original.shape)
            hint = hints.channels_last(pixels.argument, original, shape[1]) or hint
        raise ValueError(sentence(argument, requirement, shape, hint))
    if shape[0] == 0:
        requirement = "of shape (C, D) with at least one class"
        raise ValueError(sentence(argument, requirement, shape))
    check_device(argument, prototypes, pixels.original, pixels.argument)


def check_per_class(
    pixels: Pixels, argument: str, value: Tensor | None, num_classes: int, boolean: bool = False
) -> None:
    """Weights, thresholds or presence (C,), on the features' device, without gradient."""
    if value is None:
        return
    check_tensor(argument, value)
    if boolean and value.dtype != torch.bool:
        hint = "count > 0 says which classes are present."
        raise TypeError(sentence(argument, "of dtype torch.bool", value.dtype, hint))
    if not boolean:
        check_floating(argument, value)
    check_shape(argument, value, (num_classes,), "= (C,)")
    check_device(argument, value, pixels.original, pixels.argument)
    check_no_grad(argument, value)


def read_checked_labels(
    pixels: Pixels, labels: Tensor, num_classes: int, ignore_index: int
) -> Tensor:
    """Hard labels as (B, P), their values checked on a CPU, for what no operator of ours reads."""
    index = read_labels(pixels, labels, num_classes, ignore_index)
    return checked_labels(index, num_classes, ignore_index, "protocontrast")
