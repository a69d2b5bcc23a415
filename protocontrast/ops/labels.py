"""Label values, checked inside operators: on CPU, in compiled and exported programs too."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from protocontrast.checks import refuse_wrong_values


def refuse_on_host(function: str, labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Inside CPU kernels: raise on wrong values; on a GPU they turn the loss into NaN instead."""
    if labels.device.type == "cpu" and not labels.is_floating_point():
        refuse_wrong_values(function, labels, num_classes, ignore_index)


def class_labels(function: str, rows: str) -> Callable[[Any], None]:
    """The check of an operator whose calls have labels, and a row of `rows` for every class."""

    def check(call: Any) -> None:
        refuse_on_host(function, call.labels, getattr(call, rows).shape[0], call.ignore_index)

    return check


@torch.library.custom_op("protocontrast::checked_labels", mutates_args=())
def checked_labels(labels: Tensor, num_classes: int, ignore_index: int, function: str) -> Tensor:
    """A copy of the labels, after the check; the naive backend reads its labels through this."""
    refuse_on_host(function, labels, num_classes, ignore_index)
    return labels.clone()


@checked_labels.register_fake
def _(labels: Tensor, num_classes: int, ignore_index: int, function: str) -> Tensor:
    return torch.empty_like(labels)
