"""The target's part of a step in one read: (M1), (M3), (M6) and (M7) for `target_pass`, in C.

The functions of `eager/target_pass.py`.
"""

import torch
from torch import Tensor

from protocontrast.calls import TargetPassCall, accumulation_dtype
from protocontrast.native.calls import TargetPass, arrays
from protocontrast.native.library import machine, run
from protocontrast.native.rescale import rescale


def target_pass(call: TargetPassCall) -> tuple[Tensor, ...]:
    """Losses (C,), sums (C, D), counts (C,); fused labels, measure and log-sum-exp (B, P).

    The last results are the targets with transferred labels where they had no mass, and the
    gradient of the summed loss; what is not wanted comes back empty or 0.
    """
    features, targets, filling = call.features, call.targets, call.filling
    images, channels, pixels = features.shape
    classes, dtype = call.prototypes.shape[0], accumulation_dtype(features)
    losses, counts = [features.new_zeros(classes, dtype=dtype) for _ in range(2)]
    sums = features.new_zeros(classes, channels, dtype=dtype)
    labels = features.new_empty((images, pixels), dtype=torch.int64)
    values, lse = [features.new_empty((images, pixels), dtype=dtype) for _ in range(2)]
    filled = features.new_empty(0)
    if targets is not None and call.transfer:
        # C writes to it where the targets have no mass.
        filled = targets = targets.clone(memory_format=torch.contiguous_format)
        filling = None if filling is None else filling.to(targets.dtype)
    gradient = torch.empty_like(features) if call.wants_gradient else features.new_empty(0)
    given = arrays(
        *(features, call.static, targets, filling, call.prototypes, call.nearest),
        *(call.present, call.counted, gradient),
    )
    run(
        "target_pass",
        TargetPass(
            machine(features.dtype == torch.float64),
            *features.shape,
            classes,
            *given,
            *map(Tensor.data_ptr, (losses, sums, counts, labels, values, lse)),
            call.measure == "confidence",
            call.keep_absent,
            call.normalize,
            call.transfer,
            call.wants_sums,
            call.ignore_index,
            call.threshold,
            float(call.temperature),
        ),
    )
    return losses, sums, counts, labels, values, lse, filled, gradient


def scaled(
    gradient: Tensor, weights: Tensor, used: Tensor, labels: Tensor, ignore_index: int
) -> Tensor | None:
    """The gradient times the weights (C,) of its pixels' classes, in place.

    None where `used` classes differ and pixels have several, in soft targets (B, C, P).
    """
    among = weights[used]
    if bool((among == 1).all()):  # or no class is used, and the gradient is 0
        return gradient
    if bool((among == among[0]).all()):
        return gradient.mul_(among[0]) if among[0] else gradient.zero_()
    if labels.is_floating_point():
        return None
    factors = torch.cat([torch.where(used, weights, 0), weights.new_zeros(1)])
    rescale(gradient, labels, factors, ignore_index)
    return gradient
