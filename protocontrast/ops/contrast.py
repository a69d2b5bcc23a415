"""The contrast operator: loss, weight and log-sum-exp per pixel, and its gradients."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import ContrastCall
from protocontrast.eager import contrast as eager_contrast
from protocontrast.native import contrast as native_contrast
from protocontrast.ops.backend import full_precision
from protocontrast.ops.gradient import is_learnt
from protocontrast.ops.labels import class_labels
from protocontrast.ops.masses import learnt_contrast, smoothed
from protocontrast.ops.operator import Implementation, Operator, empty_pixels, named
from protocontrast.ops.reduction import reduced
from protocontrast.ops.rows import by_rows

FUNCTION = "pixel_prototype_contrast"
SPECIFICATION = by_rows(naive.pixel_prototype_contrast, FUNCTION)


def _triton() -> Implementation:
    from protocontrast.kernels import contrast, contrast_backward, prototypes

    backward = contrast_backward.contrast_backward
    return Implementation(contrast.contrast, backward, ready=prototypes.ready_for_contrast)


OPERATOR = Operator(
    "contrast", ContrastCall, lambda call: [empty_pixels(call.features) for _ in range(3)],
    naive=SPECIFICATION, triton=_triton,
    eager=named(eager_contrast, "contrast"),
    native=named(native_contrast, "contrast"),
    check=class_labels(FUNCTION, "prototypes"), results=3, saved=[2], annealed=True,
    ready=["matrix", "table", "lengths", "logits"],
    differentiable=["features", "prototypes"], private=["prototypes", "present", "class_weight"],
)  # fmt: skip


def contrast(
    call: ContrastCall, reduction: str, backend: str, label_smoothing: float = 0.0
) -> Tensor:
    """The loss: (B, P) for "none", else () with 0 where no pixel is valid."""
    if label_smoothing and backend == "naive":
        with full_precision(call.features):
            loss, weight = SPECIFICATION(OPERATOR.snapshot(call), label_smoothing)
        if reduction == "mean":
            loss = torch.where(weight.sum() == 0, 0, loss)
        return reduced(loss, weight, reduction)
    if label_smoothing:
        targets, weight = smoothed(OPERATOR.snapshot(call), label_smoothing, FUNCTION)
        call = call._replace(labels=targets)
        if reduction != "mean":
            return contrast(call, reduction, backend)
        # What is smoothed may count where nothing weighs.
        total = contrast(call, "sum", backend)
        return torch.where(weight == 0, 0, total / torch.where(weight == 0, 1, weight))
    if is_learnt(call.temperature) and backend != "naive":
        losses, masses = learnt_contrast(OPERATOR.snapshot(call), backend, FUNCTION)
        return reduced(losses.sum(dim=1), masses.sum(dim=1), reduction)
    return OPERATOR.loss(call, reduction, backend)
