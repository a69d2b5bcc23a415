"""What a class weight must be that a loss keeps."""

from torch import Tensor

from protocontrast.checks import check_floating, check_no_grad, sentence


def check_class_weight(weight: Tensor | None, to: str = "features and prototypes") -> None:
    """None, or floating of shape (C,) without gradient; `to` says what gets one."""
    if weight is None:
        return
    check_floating("class_weight", weight)
    check_no_grad("class_weight", weight, to)
    if weight.dim() != 1:
        raise ValueError(sentence("class_weight", "of shape (C,)", tuple(weight.shape)))
