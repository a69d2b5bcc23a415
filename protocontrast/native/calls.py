"""The structs of `sources/call.h`, and tensors as C reads them: address, strides, dtype."""

import ctypes

import torch
from torch import Tensor

DTYPES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.bool: 4,
    torch.int32: 5,
    torch.int64: 6,
}
"""As `enum dtype` counts them."""


class Array(ctypes.Structure):
    """A tensor of up to three dimensions; all 0 where there is none."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("strides", ctypes.c_int64 * 3),
        ("dtype", ctypes.c_int64),
    ]


class Machine(ctypes.Structure):
    """What every operator is told first."""

    _fields_ = [
        ("variant", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("wide", ctypes.c_int64),
    ]


class Contrast(ctypes.Structure):
    """`struct contrast_call`."""

    _fields_ = [
        ("machine", Machine),
        *((name, ctypes.c_int64) for name in ("images", "channels", "pixels", "classes")),
        *(
            (name, Array)
            for name in (
                *("features", "labels", "prototypes", "present", "class_weight", "pixel_weight"),
                *("upstream", "gradient", "to_prototypes"),
            )
        ),
        *((name, ctypes.c_void_p) for name in ("loss", "weight", "normaliser", "total")),
        *((name, ctypes.c_int64) for name in ("cosine", "floor", "soft", "mean", "ignore_index")),
        ("temperature", ctypes.c_double),
    ]


Call = Contrast


def wide(features: Tensor) -> torch.dtype:
    """The dtype of sums and results: float64 for float64 features, else float32."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def readable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where its memory does not hold its values, or a dtype C has not."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor if tensor.dtype in DTYPES else tensor.long()


def array(tensor: Tensor | None) -> Array:
    """A tensor that `readable` gave and the caller keeps alive; 0 for None and for no elements."""
    if tensor is None or tensor.numel() == 0:
        return Array()
    return Array(tensor.data_ptr(), tensor.stride(), DTYPES[tensor.dtype])
