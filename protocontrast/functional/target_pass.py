"""The target's part of a BiCL step in one read of its features: `pass_over`.

Not among the public functions: it is what `BiCL` makes of four of them, and serves nothing else.
Beside it stands `bicl_step`, the whole step where kernels serve it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import TargetPassCall
from protocontrast.functional.class_prototypes import ClassPrototypes
from protocontrast.functional.settings import Backend
from protocontrast.ops.backend import choose
from protocontrast.ops.bicl_step import bicl_step, is_served
from protocontrast.ops.target_pass import target_pass as operator

__all__ = ["TargetPass", "bicl_step", "is_served", "pass_over"]


class TargetPass(NamedTuple):
    """What one read of the target features gives.

    Attributes:
        labels: the fused labels (B, P), int64.
        confidence: the measure (B, P) that dynamic labels were kept by.
        prototypes: class means of the features under the fused labels, without gradient.
        losses: (C,) contrast summed over the pixels of each class, differentiable in the features;
            0 where a class is not counted.
        mass: (C,) number of pixels in `losses`, or what the targets weigh.
        targets: the soft targets of `losses`, with transferred labels where those given had no
            mass; None where none were given.
    """

    labels: Tensor
    confidence: Tensor
    prototypes: ClassPrototypes
    losses: Tensor
    mass: Tensor
    targets: Tensor | None

    def mean_loss(self, shared: Tensor, shares: Tensor | None = None) -> Tensor:
        """(M3) averaged over the pixels of the classes `shared` (C,), among those counted, ().

        Or the sum in which each of these classes has a share (C,).
        """
        losses = torch.where(shared, self.losses, 0)
        if shares is not None:
            return (shares * losses).sum()
        mass = torch.where(shared, self.mass, 0).sum()
        return losses.sum() / torch.where(mass == 0, 1, mass)


def pass_over(call: TargetPassCall, backend: Backend, even: bool = True) -> TargetPass:
    """`transfer_labels`, `fuse_labels`, `class_prototypes`, `pixel_prototype_contrast` at once.

        y = fuse(static, transfer(f, nearest)),  losses_c = sum_{i: y_i = c} contrast_i(f, y, p)

    What the call holds has been checked. `even`: whether classes will have one weight in the loss,
    which is faster for soft targets.
    """
    found = operator(call, choose(backend, "target_pass", call.features), even)
    soft = found.targets
    mean = found.sums / torch.where(found.counts == 0, 1, found.counts)[:, None]
    return TargetPass(
        found.labels,
        found.measure,
        ClassPrototypes(mean, found.counts),
        found.losses,
        found.counts if soft is None else soft.sum((0, 2), dtype=mean.dtype),
        soft,
    )
