"""The structs of `sources/call.h`, and tensors as C reads them: address, strides, dtype."""

import ctypes
from functools import partial
from typing import Any

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
    """A tensor of up to three dimensions, which it keeps; all 0 where there is none."""

    tensor: Tensor
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("strides", ctypes.c_int64 * 3),
        ("dtype", ctypes.c_int64),
    ]


NONE = Array()
"""Of a tensor that is not there; a struct that it is put into gets a copy."""


def _all(kind: Any, *names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names]


_integers, _numbers = partial(_all, ctypes.c_int64), partial(_all, ctypes.c_double)
_arrays, _pointers = partial(_all, Array), partial(_all, ctypes.c_void_p)


class Machine(ctypes.Structure):
    """What every operator is told first."""

    _fields_ = _integers("variant", "threads", "wide")


class Call(ctypes.Structure):
    """What the calls of all operators begin with."""

    _fields_ = [("machine", Machine)]


SIZES = ("images", "channels", "pixels", "classes")


class Contrast(Call):
    """`struct contrast_call`."""

    _fields_ = [
        *_integers(*SIZES),
        *_arrays("features", "labels", "prototypes", "present", "class_weight", "pixel_weight"),
        *_arrays("grad_output", "gradient", "to_prototypes"),
        *_pointers("loss", "weight", "lse", "total"),
        *_integers("similarity", "keep_absent", "soft", "mean", "ignore_index"),
        *_numbers("temperature"),
    ]


class ClassSums(Call):
    """`struct class_sums_call`."""

    _fields_ = [
        *_integers(*SIZES),
        *_arrays("features", "labels", "pixel_weight"),
        *_pointers("sums", "counts"),
        *_integers("normalize", "per_image", "ignore_index"),
    ]


class ClassSumsBackward(Call):
    """`struct class_sums_backward_call`."""

    _fields_ = [
        *_integers(*SIZES, "groups"),
        *_arrays("features", "labels", "pixel_weight", "grad_output", "gradient"),
        *_integers("normalize", "ignore_index"),
    ]


class Transfer(Call):
    """`struct transfer_call`."""

    _fields_ = [
        *_integers(*SIZES),
        *_arrays("features", "prototypes", "present", "class_threshold"),
        *_pointers("labels", "values"),
        *_integers("cosine", "confidence", "ignore_index"),
        *_numbers("threshold", "temperature"),
    ]


class TargetPass(Call):
    """`struct target_pass_call`."""

    _fields_ = [
        *_integers(*SIZES),
        *_arrays("features", "given", "targets", "filling", "prototypes", "nearest", "present"),
        *_arrays("counted", "gradient"),
        *_pointers("losses", "sums", "counts", "labels", "values", "lse"),
        *_integers("confidence", "keep_absent", "normalize", "transfer", "wants_sums"),
        *_integers("ignore_index"),
        *_numbers("threshold", "temperature"),
    ]


class Domain(ctypes.Structure):
    """`struct domain`."""

    _fields_ = [
        *_integers("images", "pixels"),
        *_arrays("features", "labels", "targets", "gradient"),
        *_pointers("share", "loss"),
    ]


class Bidirectional(Call):
    """`struct bidirectional_call`."""

    _fields_ = [
        *_integers("channels", "classes"),
        ("domains", Domain * 2),
        ("soft", ctypes.c_int64 * 2),
        *_integers("keep_absent", "pairwise", "whole_class", "ignore_index"),
        *_numbers("temperature"),
    ]


class Rescale(Call):
    """`struct rescale_call`."""

    _fields_ = [
        *_integers(*SIZES, "groups"),
        *_arrays("gradient", "labels", "factors", "rows"),
        *_integers("ignore_index"),
        *_numbers("row_factor"),
    ]


class UpsampledCrossEntropy(Call):
    """`struct upsampled_cross_entropy_call`."""

    _fields_ = [
        *_integers("images", "classes", "height", "width", "out_height", "out_width"),
        *_arrays("logits", "labels", "class_weight", "grad_output", "gradient"),
        *_integers("logits_row", "gradient_row"),
        *_pointers("loss", "totals"),
        *_integers("align_corners", "ignore_index"),
        *_numbers("label_smoothing"),
    ]


SIMILARITIES = ("cosine", "dot", "euclidean")
"""As `enum similarity` counts them."""


class Logits(Call):
    """`struct logits_call`."""

    _fields_ = [
        *_integers(*SIZES),
        *_arrays("features", "prototypes", "present", "grad_output", "gradient", "to_prototypes"),
        *_pointers("logits"),
        *_integers("similarity"),
        *_numbers("temperature"),
    ]


class PairContrast(Call):
    """`struct pair_contrast_call`."""

    _fields_ = [
        *_integers("anchors_given", "keys_given", "channels"),
        *_arrays("anchors", "anchor_labels", "keys", "positive_labels", "negative_labels"),
        *_arrays("anchor_weight", "statistics", "to_anchors", "to_keys"),
        *_pointers("loss", "weight", "found"),
        *_integers("similarity", "two_roles", "all_in_denominator", "exclude_self", "ignore_index"),
        *_numbers("temperature"),
    ]


class Labels(Call):
    """`struct labels_call`."""

    _fields_ = [
        ("sizes", ctypes.c_int64 * 3),
        ("labels", Array),
        *_integers("classes", "ignore_index"),
    ]


def arrays(*tensors: Tensor | None) -> list[Array]:
    """Tensors as C reads them, 0 for None and for no elements; alive as long as this list is.

    Of one whose memory does not hold its values, or whose dtype C has not, it is a copy. One call
    for all of them: on small maps calls of Python are what a step costs.
    """
    found = []
    for tensor in tensors:
        if tensor is None or tensor.numel() == 0:
            found.append(NONE)
            continue
        if tensor.is_neg():
            tensor = tensor.resolve_neg()
        if tensor.dtype not in DTYPES:
            tensor = tensor.long()
        found.append(Array(tensor.data_ptr(), tensor.stride(), DTYPES[tensor.dtype]))
        found[-1].tensor = tensor
    return found
