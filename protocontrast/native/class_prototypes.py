"""Class sums and counts in one read: (M1) for `class_prototypes`, and the way back, in C.

The functions of `eager/class_prototypes.py`.
"""

import torch
from torch import Tensor

from protocontrast.native.calls import ClassSums, ClassSumsBackward, array, readable, wide
from protocontrast.native.library import machine, run


def class_sums(
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    num_classes: int,
    normalize: bool,
    per_image: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1."""
    features, labels = readable(features), readable(labels)
    weight = None if pixel_weight is None else readable(pixel_weight)
    images, channels, pixels = features.shape
    groups = images if per_image else 1
    sums = features.new_zeros(groups, num_classes, channels, dtype=wide(features))
    counts = features.new_zeros(groups, num_classes, dtype=wide(features))
    run(
        "class_sums",
        ClassSums(
            machine(features.dtype == torch.float64),
            images,
            channels,
            pixels,
            num_classes,
            *map(array, (features, labels, weight)),
            sums.data_ptr(),
            counts.data_ptr(),
            normalize,
            per_image,
            ignore_index,
        ),
    )
    return sums, counts


def class_sums_backward(
    upstream: Tensor,
    features: Tensor,
    labels: Tensor,
    pixel_weight: Tensor | None,
    normalize: bool,
    ignore_index: int,
) -> Tensor:
    """Gradient of the features from that of the sums (G, C, D)."""
    upstream, features, labels = readable(upstream), readable(features), readable(labels)
    weight = None if pixel_weight is None else readable(pixel_weight)
    gradient = torch.empty_like(features)
    images, channels, pixels = features.shape
    groups, num_classes, _ = upstream.shape
    run(
        "class_sums_backward",
        ClassSumsBackward(
            machine(features.dtype == torch.float64),
            images,
            channels,
            pixels,
            num_classes,
            groups,
            *map(array, (features, labels, weight, upstream, gradient)),
            normalize,
            ignore_index,
        ),
    )
    return gradient
