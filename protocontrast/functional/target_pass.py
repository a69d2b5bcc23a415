"""The target's part of a BiCL step in one read of its features: `target_pass`.

Not among the public functions: it is what `BiCL` makes of four of them, and serves nothing else.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import TargetPassCall
from protocontrast.checks import public
from protocontrast.functional.class_prototypes import ClassPrototypes
from protocontrast.functional.pixels import (
    check_per_class,
    check_prototypes,
    read_features,
    read_labels,
    read_targets,
)
from protocontrast.functional.settings import Absent, Backend
from protocontrast.functional.temperature import read_temperature
from protocontrast.functional.transfer import Measure
from protocontrast.ops.backend import choose
from protocontrast.ops.target_pass import target_pass as operator


class TargetPass(NamedTuple):
    """What one read of the target features gives.

    Attributes:
        labels: the fused labels, int64, the pixels' shape.
        confidence: the measure that dynamic labels were kept by, the pixels' shape.
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


@public
def target_pass(
    features: Tensor,
    prototypes: Tensor,
    *,
    present: Tensor,
    counted: Tensor | None,
    static: Tensor | None = None,
    targets: Tensor | None = None,
    filling: Tensor | None = None,
    nearest: Tensor | None = None,
    threshold: float = 0.8,
    measure: Measure = "confidence",
    temperature: float | Tensor = 0.1,
    absent: Absent = "mask",
    normalize: bool = False,
    transfer: bool = True,
    wants_means: bool = True,
    even: bool = True,
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> TargetPass:
    """`transfer_labels`, `fuse_labels`, `class_prototypes`, `pixel_prototype_contrast` at once.

        y = fuse(static, transfer(f, nearest)),  losses_c = sum_{i: y_i = c} contrast_i(f, y, p)

    Args:
        features: pixels, any memory format.
        prototypes: of the contrast, without gradient.
        present: which classes have a prototype, here and among `nearest`.
        counted: classes whose pixels carry loss, where they are present. None: no loss is taken.
        static: labels that win where valid.
        targets: soft targets of the contrast, such as counts; where they are 0 for all classes, the
            transferred label counts. None: the fused labels.
        filling: mass of such a label, like a row of pixels of one image. None: 1.
        nearest: prototypes of the transfer. None: `prototypes`.
        threshold: a dynamic label needs this `measure`.
        measure: "confidence" or "similarity", see `transfer_labels`.
        temperature: of contrast and confidence, > 0: a number or a tensor (), as in
            `pixel_prototype_contrast`.
        absent: "mask" or "floor", see `pixel_prototype_contrast`.
        normalize: of the class means, see `class_prototypes`.
        transfer: False gives no dynamic labels, and confidence 0.
        wants_means: False leaves the class means 0.
        even: whether classes will have one weight in the loss, which is faster for soft targets.
        ignore_index: label of pixels without a class, outside 0..C-1.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); static the same pixels, any
        integer dtype; targets (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C), float; filling
        (Z, H, W), (H, W), (P,) or (N,); prototypes, nearest (C, D); present, counted (C,) bool.

    Returns:
        `TargetPass`. Similarities are cosines.

    Raises:
        ValueError: shapes or devices disagree, or (CPU) a static label is no class.
        TypeError: a wrong dtype, or prototypes that require grad.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M1), (M3), (M6), (M7) of docs/maths.md.

    Example:
        >>> import torch
        >>> everywhere = torch.tensor([True, True])
        >>> found = target_pass(
        ...     2 * torch.eye(2), torch.eye(2), present=everywhere, counted=everywhere
        ... )
        >>> found.labels.tolist(), found.prototypes.mean.tolist()
        ([0, 1], [[2.0, 0.0], [0.0, 2.0]])
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    num_classes = prototypes.shape[0]
    if nearest is not None:
        check_prototypes(pixels, nearest, "nearest")
    check_per_class(pixels, "present", present, num_classes, boolean=True)
    check_per_class(pixels, "counted", counted, num_classes, boolean=True)
    call = TargetPassCall(
        pixels.features.detach() if counted is None else pixels.features,
        None if static is None else read_labels(pixels, static, num_classes, ignore_index),
        None if targets is None else read_targets(pixels, targets, num_classes, ignore_index),
        None if filling is None else filling.flatten(),
        prototypes.detach(),
        None if nearest is None else nearest.detach(),
        present,
        counted,
        float(threshold),
        measure,
        read_temperature(temperature, features),
        absent == "floor",
        bool(normalize),
        ignore_index,
        bool(transfer),
        bool(wants_means),
    )
    found = pass_over(call, backend, even)
    return found._replace(
        labels=pixels.restored(found.labels),
        confidence=pixels.restored(found.confidence),
        targets=None if found.targets is None else _restored(found.targets, targets),
    )


def pass_over(call: TargetPassCall, backend: Backend, even: bool = True) -> TargetPass:
    """The same of a call that has been checked, with pixels (B, P)."""
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


def _restored(soft: Tensor, like: Tensor | None) -> Tensor:
    """Soft targets (B, C, P) in the form in which they were given."""
    if like is None or like.dim() > 2:
        return soft if like is None else soft.reshape(like.shape)
    return soft[0].t()
