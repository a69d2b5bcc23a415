"""Labels, class sums and contrast of the target, one after the other."""

import torch
from torch import Tensor

from protocontrast.calls import ClassSumsCall, TargetPassCall
from protocontrast.naive.class_prototypes import class_sums
from protocontrast.naive.contrast import pixel_prototype_contrast
from protocontrast.naive.transfer import fuse_labels, transfer_labels


def target_pass(
    call: TargetPassCall,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """(M6) from `nearest`, (M7), (M1) and (M3) of the fused labels, the last summed per class.

    Soft `targets` (N, C) take the fused labels' place in the contrast, (M5); where they are 0 for
    all classes, the transferred label counts with a mass of `filling` (N,), or 1.

    Losses (C,) of the `counted` classes, sums (C, D), counts (C,), fused labels and measure (N,),
    and the soft targets of the contrast.
    """
    labels, value = transfer_labels(call.of_labels())
    if not call.transfer:
        labels, value = torch.full_like(labels, call.ignore_index), torch.zeros_like(value)
    number, targets = len(call.prototypes), call.targets
    classes = torch.arange(number, device=labels.device)
    if targets is not None:
        moved = (labels[:, None] == classes).to(targets.dtype)
        if call.filling is not None:
            moved = moved * call.filling[:, None].to(targets.dtype)
        targets = torch.where((targets.sum(dim=1) == 0)[:, None], moved, targets)
    if call.static is not None:
        labels = fuse_labels(call.static, labels, call.ignore_index)
    contrast = call.of_losses(labels if targets is None else targets)
    losses = []
    for c in range(number):
        one = contrast._replace(class_weight=call.used() & (classes == c))
        losses.append(pixel_prototype_contrast(one)[0].sum())
    members = ClassSumsCall(
        call.features, labels, None, number, call.normalize, False, call.ignore_index
    )
    sums, counts = class_sums(members)
    return torch.stack(losses), sums, counts, labels, value, targets
