"""Contrast of pixels and prototypes: (M3) to (M5) for `pixel_prototype_contrast`, in C.

The functions of `eager/contrast.py`, for "cosine" and "dot".
"""

import torch
from torch import Tensor

from protocontrast.native.calls import Contrast, array, readable, wide
from protocontrast.native.library import machine, run


def _call(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    temperature: float,
    floor: bool,
    ignore_index: int,
    *,
    upstream: Tensor | None = None,
    gradient: Tensor | None = None,
    to_prototypes: Tensor | None = None,
    pixels: tuple[Tensor, Tensor, Tensor] | None = None,
    total: Tensor | None = None,
    mean: bool = False,
) -> None:
    """One sweep; what is given after the settings is written, but for `upstream`."""
    given = [features, labels, prototypes, present, class_weight, pixel_weight, upstream]
    given = [None if tensor is None else readable(tensor) for tensor in given]
    images, channels, count = features.shape
    dense = (None,) * 3 if pixels is None else tuple(one.data_ptr() for one in pixels)
    run(
        "contrast",
        Contrast(
            machine(features.dtype == torch.float64),
            images,
            channels,
            count,
            prototypes.shape[0],
            *map(array, (*given, gradient, to_prototypes)),
            *dense,
            None if total is None else total.data_ptr(),
            kind == "cosine",
            floor,
            labels.is_floating_point(),
            mean,
            ignore_index,
            temperature,
        ),
    )


def contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    temperature: float,
    floor: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    shape = features.shape[0], features.shape[2]
    loss, weight, normaliser = (features.new_empty(shape, dtype=wide(features)) for _ in range(3))
    _call(
        features, labels, prototypes, present, class_weight, pixel_weight,
        kind, temperature, floor, ignore_index, pixels=(loss, weight, normaliser),
    )  # fmt: skip
    return loss, weight, normaliser


def contrast_backward(
    upstream: Tensor,
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    normaliser: Tensor,
    kind: str,
    temperature: float,
    floor: bool,
    ignore_index: int,
    wants_features: bool,
    wants_prototypes: bool,
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of sum_i upstream_i loss_i; one that is not wanted comes back empty.

    The log-sum-exp is found again on the way, so `normaliser` is not read.
    """
    gradient, to_prototypes = _gradients(features, prototypes, wants_features, wants_prototypes)
    _call(
        features, labels, prototypes, present, class_weight, pixel_weight,
        kind, temperature, floor, ignore_index,
        upstream=upstream, gradient=gradient, to_prototypes=to_prototypes,
    )  # fmt: skip
    return gradient, to_prototypes


def contrast_with_gradient(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    present: Tensor | None,
    class_weight: Tensor | None,
    pixel_weight: Tensor | None,
    kind: str,
    temperature: float,
    floor: bool,
    ignore_index: int,
    mean: bool,
    wants_features: bool,
    wants_prototypes: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed or averaged loss () and its gradients, from one read of the features."""
    gradient, to_prototypes = _gradients(features, prototypes, wants_features, wants_prototypes)
    loss = features.new_zeros((), dtype=wide(features))
    _call(
        features, labels, prototypes, present, class_weight, pixel_weight,
        kind, temperature, floor, ignore_index,
        gradient=gradient, to_prototypes=to_prototypes, total=loss, mean=mean,
    )  # fmt: skip
    return loss, gradient, to_prototypes


def _gradients(
    features: Tensor, prototypes: Tensor, wants_features: bool, wants_prototypes: bool
) -> tuple[Tensor, Tensor]:
    """Room for what is wanted, with the strides of `torch.empty_like`, as the operators promise."""
    return (
        torch.empty_like(features) if wants_features else features.new_empty(0),
        torch.empty_like(prototypes) if wants_prototypes else prototypes.new_empty(0),
    )
