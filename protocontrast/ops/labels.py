"""Label values, checked inside operators: on CPU, in compiled and exported programs too."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from protocontrast.calls import LabelCountsCall
from protocontrast.checks import refuse_wrong_values
from protocontrast.eager import grid as eager_grid
from protocontrast.native.labels import are_right
from protocontrast.ops.backend import is_plain
from protocontrast.ops.operator import Operator, named

_THREAD = threading.local()


class _LabelsAreKnown:
    """While it is entered, this thread looks at no label values."""

    def __enter__(self) -> None:
        self.before = getattr(_THREAD, "labels_are_known", False)
        _THREAD.labels_are_known = True

    def __exit__(self, *_: object) -> None:
        _THREAD.labels_are_known = self.before


def labels_are_known() -> AbstractContextManager[None]:
    """Where all labels have been looked at, or were made of such: operators then need not again.

    A compiled program keeps its checks, since it does not keep this.
    """
    return nullcontext() if torch.compiler.is_compiling() else _LabelsAreKnown()


def refuse_on_host(function: str, labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """Inside CPU kernels: raise on wrong values; on a GPU they turn the loss into NaN instead."""
    known = getattr(_THREAD, "labels_are_known", False)
    if known or labels.device.type != "cpu" or labels.is_floating_point():
        return
    if not are_right(labels, num_classes, ignore_index):
        refuse_wrong_values(function, labels, num_classes, ignore_index)


def class_labels(function: str, field: str, axis: int = 0) -> Callable[[Any], None]:
    """The check of an operator whose calls have labels.

    The `field` is the number of classes, or a tensor with one along its axis for each.
    """

    def check(call: Any) -> None:
        given = getattr(call, field)
        classes = given.shape[axis] if isinstance(given, Tensor) else given
        refuse_on_host(function, call.labels, classes, call.ignore_index)

    return check


def known_labels(labels: Tensor, num_classes: int, ignore_index: int, function: str) -> Tensor:
    """The labels after the check; a copy where a trace must not lose it."""
    if torch.compiler.is_compiling() or not is_plain(labels):
        return checked_labels(labels, num_classes, ignore_index, function)
    refuse_on_host(function, labels, num_classes, ignore_index)
    return labels


@torch.library.custom_op("protocontrast::checked_labels", mutates_args=())
def checked_labels(labels: Tensor, num_classes: int, ignore_index: int, function: str) -> Tensor:
    """A copy of the labels, after the check; the naive backend reads its labels through this."""
    refuse_on_host(function, labels, num_classes, ignore_index)
    return labels.clone()


@checked_labels.register_fake
def _(labels: Tensor, num_classes: int, ignore_index: int, function: str) -> Tensor:
    return torch.empty_like(labels)


def _empty_counts(call: LabelCountsCall) -> list[Tensor]:
    shape = call.labels.shape[0], call.num_classes, call.height, call.width
    return [call.labels.new_empty(shape, dtype=torch.float32)]


COUNTS = Operator(
    "label_counts", LabelCountsCall, _empty_counts,
    eager=named(eager_grid, "label_counts"), check=class_labels("labels_to_grid", "num_classes"),
)  # fmt: skip


def label_counts(call: LabelCountsCall) -> Tensor:
    """(B, C, height, width) float32: pixels of each class in each cell."""
    return COUNTS(call, "eager")
