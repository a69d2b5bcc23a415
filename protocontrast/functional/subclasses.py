"""Several prototypes per class: `assign_subclasses` and `subclass_max`."""

import torch
from torch import Tensor

from protocontrast.checks import (
    check_count,
    check_device,
    check_floating,
    check_ignore_index,
    check_positive,
    public,
    sentence,
)
from protocontrast.functional import hints
from protocontrast.functional.logits import prototype_logits
from protocontrast.functional.pixels import read_checked_labels, read_features
from protocontrast.functional.settings import Backend
from protocontrast.functional.sinkhorn import balanced
from protocontrast.ops.backend import choose


@public
@torch.no_grad()
def assign_subclasses(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> Tensor:
    """Which of its class's M prototypes a pixel belongs to, so that each gets an equal share.

    Within class c, with cosines s_im = cos(f_i, p_cm), the transport plan q_im = u_m v_i e^{s_im /
    epsilon} is scaled to equal sums over the pixels for every m, then to sum 1 over m for every
    pixel, `iterations` times;

        label_i = M y_i + argmax_m q_im.

    With `prototypes.flatten(0, 1)` the result goes into `pixel_prototype_contrast`, whose sum then
    runs over all C * M prototypes, and into `class_prototypes` with C * M classes.

    Args:
        features: pixels, any memory format.
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        prototypes: M rows per class. Where they are equal all pixels go to the first, so start from
            different ones.
        epsilon: > 0; towards 0 the plan becomes hard and needs more iterations to be equal.
        iterations: >= 1.
        ignore_index: label of pixels without a class, in and out.
        backend: of the cosines.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels (B, Z, H, W), (B, H, W),
        (B, P) or (N,); prototypes (C, M, D). Result int64 like labels.

    Returns:
        Labels of sub-classes, 0..C*M-1 or `ignore_index`, without gradient; ties go to the lowest.
        Classes do not influence each other. The only pixel of a class is shared equally by all its
        prototypes and so goes to the first. A pixel that is not finite is ignored and spoils the
        plan of no other.

    Raises:
        ValueError: shapes or devices disagree, a setting out of range, an `ignore_index` that is a
            sub-class, or (CPU) a label is no class.
        TypeError: a wrong dtype.

    Source:
        Zhou et al., Rethinking Semantic Segmentation: A Prototype View, arXiv 2203.15102 (online
        clustering within each class); (D4) of docs/distributions.md.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> prototypes = torch.eye(2).expand(2, 2, 2)
        >>> assign_subclasses(features, torch.tensor([1, 255, 1, 1]), prototypes).tolist()
        [2, 255, 3, 3]
    """
    pixels = read_features(features)
    check_floating("prototypes", prototypes)
    shape = tuple(prototypes.shape)
    if prototypes.dim() != 3 or 0 in shape or shape[2] != pixels.channels:
        requirement = f"of shape (C, M, D) with D = {pixels.channels} as in features"
        requirement += f" {tuple(features.shape)}"
        hint = "prototypes[:, None] is one prototype per class."
        if prototypes.dim() == 3:
            hint = hints.channels_last("features", tuple(features.shape), shape[2]) or hint
        raise ValueError(sentence("prototypes", requirement, shape, hint))
    check_device("prototypes", prototypes, features, "features")
    check_positive("epsilon", epsilon)
    check_count("iterations", iterations)
    num_classes, each, _ = shape
    whole = f"the labels of {each} x {num_classes} sub-classes"
    check_ignore_index(ignore_index, num_classes)
    hint = f"torch.where(labels == {ignore_index}, -100, labels.long()) with ignore_index=-100."
    check_ignore_index(ignore_index, num_classes * each, whole, hint)
    chosen: Backend = choose(backend, "logits", features)  # type: ignore[assignment]
    index = read_checked_labels(pixels, labels, num_classes, ignore_index).long()
    valid = index != ignore_index
    # On a device a value that is no class belongs to none.
    valid = valid & (index >= 0) & (index < num_classes)
    classes = torch.where(valid, index, 0)
    own = classes[:, None] * each + torch.arange(each, device=index.device)[:, None]
    rows = prototypes.flatten(0, 1)
    present = torch.ones_like(rows[:, 0], dtype=torch.bool)
    # Image by image, so that the cosines to the other classes' prototypes are never all there.
    scores = [
        prototype_logits(image, rows, present=present, temperature=1.0, backend=chosen).gather(
            1, at
        )
        for image, at in zip(pixels.features.split(1), own.split(1), strict=True)
    ]
    if not scores:
        return pixels.restored(index)
    cosines = torch.cat(scores).transpose(1, 2).flatten(0, 1)
    valid = valid.flatten() & torch.isfinite(cosines).all(dim=1)
    classes = classes.flatten()
    log_weight = torch.where(valid, 0.0, -torch.inf).to(cosines.dtype)
    plan = balanced(cosines / float(epsilon), log_weight, 0.0, classes, num_classes, iterations)
    found = classes * each + plan.argmax(dim=1)
    return pixels.restored(torch.where(valid, found, ignore_index))


@public
def subclass_max(logits: Tensor, num_classes: int) -> Tensor:
    """Logits of classes from those of their prototypes: the largest of each class's M.

        z_ic = max_m z_{i, c M + m}

    Args:
        logits: of C * M prototypes, class by class, as from `prototype_logits`.
        num_classes: C, a divisor of the number of prototypes.

    Shape:
        logits (B, C * M, Z, H, W), (B, C * M, H, W), (B, C * M, P) or (N, C * M). Result with C in
        place of C * M.

    Returns:
        Logits in the same dtype. The gradient goes to the largest, and in equal parts to equal
        ones. A class whose prototypes are all absent (-inf) is absent.

    Raises:
        ValueError: another number of dimensions, or C does not divide the prototypes.
        TypeError: a wrong dtype.

    Source:
        Zhou et al., Rethinking Semantic Segmentation: A Prototype View, arXiv 2203.15102 (winner
        among the prototypes of a class); (D5) of docs/distributions.md.

    Example:
        >>> import torch
        >>> subclass_max(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), 2).tolist()
        [[3.0, 2.0]]
    """
    check_floating("logits", logits)
    check_count("num_classes", num_classes)
    shape = tuple(logits.shape)
    if logits.dim() not in (2, 3, 4, 5) or shape[1] == 0 or shape[1] % num_classes:
        requirement = "of shape (B, C * M, Z, H, W), (B, C * M, H, W), (B, C * M, P) or (N, C * M)"
        requirement += f" with C = {num_classes}"
        raise ValueError(sentence("logits", requirement, shape))
    return logits.unflatten(1, (num_classes, shape[1] // num_classes)).amax(dim=2)
