"""Class sums and counts in one read: (M1) for `class_prototypes`, and the way back, in C.

The functions of `eager/class_prototypes.py`.
"""

import torch
from torch import Tensor

from protocontrast.calls import ClassSumsCall, accumulation_dtype
from protocontrast.native.calls import ClassSums, ClassSumsBackward, arrays
from protocontrast.native.library import machine, run


def class_sums(call: ClassSumsCall) -> tuple[Tensor, Tensor]:
    """Sums (G, C, D) and counts (G, C) with G = B per image, else 1."""
    features, labels, pixel_weight, num_classes, normalize, per_image, ignore_index = call
    given = arrays(features, labels, pixel_weight)
    images, channels, _ = features.shape
    groups = images if per_image else 1
    dtype = accumulation_dtype(features)
    sums = features.new_zeros(groups, num_classes, channels, dtype=dtype)
    counts = features.new_zeros(groups, num_classes, dtype=dtype)
    run(
        "class_sums",
        ClassSums(
            machine(features.dtype == torch.float64),
            *features.shape,
            num_classes,
            *given,
            sums.data_ptr(),
            counts.data_ptr(),
            normalize,
            per_image,
            ignore_index,
        ),
    )
    return sums, counts


def class_sums_backward(
    grad_output: Tensor, call: ClassSumsCall, wants: tuple[bool, ...]
) -> Tensor:
    """Gradient of the features from that of the sums (G, C, D)."""
    features, labels, pixel_weight, num_classes, normalize, _, ignore_index = call
    gradient = torch.empty_like(features)
    given = arrays(features, labels, pixel_weight, grad_output, gradient)
    run(
        "class_sums_backward",
        ClassSumsBackward(
            machine(features.dtype == torch.float64),
            *features.shape,
            num_classes,
            grad_output.shape[0],
            *given,
            normalize,
            ignore_index,
        ),
    )
    return gradient
