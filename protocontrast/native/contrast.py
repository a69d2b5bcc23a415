"""Contrast of pixels and prototypes: (M3) to (M5) for `pixel_prototype_contrast`, in C.

The functions of `eager/contrast.py`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from protocontrast.calls import ContrastCall, accumulation_dtype
from protocontrast.native.calls import SIMILARITIES, Contrast, arrays
from protocontrast.native.library import machine, run


def _sweep(
    call: ContrastCall,
    *,
    grad_output: Tensor | None = None,
    gradients: Sequence[Tensor | None] = (None, None),
    pixels: Sequence[Tensor | None] = (None, None, None),
    total: Tensor | None = None,
    mean: bool = False,
) -> None:
    """One sweep; what is given beside the call is written, but for `grad_output`."""
    features, labels = call.features, call.labels
    given = arrays(
        *(features, labels, call.prototypes, call.present),
        *(call.class_weight, call.pixel_weight, grad_output, *gradients),
    )
    run(
        "contrast",
        Contrast(
            machine(features.dtype == torch.float64),
            *features.shape,
            call.prototypes.shape[0],
            *given,
            *[None if one is None else one.data_ptr() for one in (*pixels, total)],
            SIMILARITIES.index(call.similarity),
            call.keep_absent,
            labels.is_floating_point(),
            mean,
            call.ignore_index,
            float(call.temperature),
        ),
    )


def contrast(call: ContrastCall) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, weight and log-sum-exp of every pixel, each (B, P); the last is +inf where ignored."""
    features = call.features
    shape = features.shape[0], features.shape[2]
    loss, weight, lse = (
        features.new_empty(shape, dtype=accumulation_dtype(features)) for _ in range(3)
    )
    _sweep(call, pixels=(loss, weight, lse))
    return loss, weight, lse


def contrast_backward(
    grad_output: Tensor, call: ContrastCall, wants: tuple[bool, ...], lse: Tensor
) -> tuple[Tensor, Tensor]:
    """(M4) gradients of sum_i grad_output_i loss_i; one that is not wanted comes back empty.

    The log-sum-exp is found again on the way, so `lse` is not read.
    """
    gradients = _gradients(call, wants)
    _sweep(call, grad_output=grad_output, gradients=gradients)
    return gradients


def contrast_with_gradient(
    call: ContrastCall, mean: bool, wants: tuple[bool, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The summed or averaged loss () and its gradients, from one read of the features."""
    gradients = _gradients(call, wants)
    loss = call.features.new_zeros((), dtype=accumulation_dtype(call.features))
    _sweep(call, gradients=gradients, total=loss, mean=mean)
    return loss, *gradients


def _gradients(call: ContrastCall, wants: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Room for what is wanted, with the strides of `torch.empty_like`, as the operators promise."""
    to_features, to_prototypes = [
        torch.empty_like(one) if want else one.new_empty(0)
        for one, want in zip((call.features, call.prototypes), wants, strict=True)
    ]
    return to_features, to_prototypes
