"""The operator of the contrast with class distributions, and its gradients."""

import torch
from torch import Tensor

from protocontrast import naive
from protocontrast.calls import DistributionCall
from protocontrast.eager import distribution_contrast as eager_distribution
from protocontrast.ops.gradient import private_copy, private_temperature
from protocontrast.ops.labels import class_labels
from protocontrast.ops.operator import Implementation, Operator, empty_pixels, named
from protocontrast.ops.rows import by_rows

FUNCTION = "distribution_contrast"


def _triton() -> Implementation:
    from protocontrast.kernels import distribution_contrast as kernels

    return named(kernels, "distribution_contrast")


OPERATOR = Operator(
    "distribution_contrast", DistributionCall,
    lambda call: [empty_pixels(call.features) for _ in range(3)],
    naive=by_rows(naive.distribution_contrast, FUNCTION), triton=_triton,
    eager=named(eager_distribution, "distribution_contrast"),
    check=class_labels(FUNCTION, "prototypes"), results=3, saved=[2],
    differentiable=["features", "prototypes", "variance"],
    private=["prototypes", "variance", "present", "class_weight"],
)  # fmt: skip


def _over_temperature(call: DistributionCall) -> DistributionCall:
    """A temperature that is a tensor divides the classes' rows, which carry its gradient."""
    temperature = private_temperature(call.temperature)
    if not isinstance(temperature, Tensor):
        return call

    def divided(rows: Tensor, divisor: Tensor) -> Tensor:
        own = rows if rows.requires_grad else private_copy(rows)
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        if call.present is not None:  # what absent rows hold may be NaN, and 0 * NaN is NaN
            own = torch.where(private_copy(call.present)[:, None], own, 0)
        return own / divisor

    return call._replace(
        prototypes=divided(call.prototypes, temperature),
        variance=divided(call.variance, temperature.square()),
        temperature=1.0,
    )


def distribution_contrast(call: DistributionCall, reduction: str, backend: str) -> Tensor:
    """The loss: (B, P) for "none", else () with 0 where no pixel is valid."""
    if backend != "naive" and isinstance(call.temperature, Tensor):
        call = _over_temperature(OPERATOR.snapshot(call))
    return OPERATOR.loss(call, reduction, backend)
