"""Label values, looked at in C before an operator reads them."""

import ctypes

import torch
from torch import Tensor

from protocontrast.native.calls import DTYPES, Array, Labels
from protocontrast.native.library import loaded, machine

READ = (torch.uint8, torch.int32, torch.int64)


def are_right(labels: Tensor, num_classes: int, ignore_index: int) -> bool:
    """Whether C has found every label to be a class or `ignore_index`.

    False, too, where it cannot look: without a library, or at other dtypes or more dimensions.
    """
    library, _ = loaded()
    before = 3 - labels.dim()
    if library is None or before < 0 or labels.dtype not in READ or type(labels) is not Tensor:
        return False
    strides = *(0,) * before, *labels.stride()
    given = Array(labels.data_ptr(), strides, DTYPES[labels.dtype])
    sizes = *(1,) * before, *labels.shape
    call = Labels(machine(False), sizes, given, num_classes, ignore_index)
    return not library.protocontrast_labels(ctypes.byref(call))
