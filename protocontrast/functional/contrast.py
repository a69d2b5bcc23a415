"""Contrast between pixels and class prototypes: `pixel_prototype_contrast`."""

from torch import Tensor

from protocontrast.calls import ContrastCall
from protocontrast.checks import public
from protocontrast.functional.pixels import (
    check_per_class,
    check_prototypes,
    read_features,
    read_pixel_weight,
    read_targets,
)
from protocontrast.functional.settings import (
    Absent,
    Backend,
    ContrastSettings,
    Reduction,
    Similarity,
    placed_temperature,
)
from protocontrast.ops.backend import choose
from protocontrast.ops.contrast import contrast
from protocontrast.ops.gradient import is_learnt


@public
def pixel_prototype_contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    *,
    present: Tensor | None = None,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    similarity: Similarity = "cosine",
    temperature: float | Tensor = 0.1,
    absent: Absent = "mask",
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Cross-entropy of every pixel over its similarities to all class prototypes.

    With z_ic = sim(f_i, p_c) / temperature and hard labels y,

        loss_i = w_i cw_{y_i} (logsumexp_c z_ic - z_{i y_i}),

    with soft targets t (class counts or probabilities, not normalised: they weigh),

        loss_i = w_i sum_c t_ic cw_c (logsumexp_k z_ik - z_ic).

    Args:
        features: pixels, any memory format; read in place, and copied for a learnt temperature
            alone.
        labels: classes 0..C-1 or `ignore_index` in any integer dtype, or soft targets in a floating
            one.
        prototypes: one row per class. Rows of absent classes are never read and may hold NaN.
        present: which classes have a prototype. None: all, but under "cosine" all-zero rows are
            absent.
        class_weight: cw_c, any floating dtype. 0 ignores the class's pixels.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        similarity: "cosine" in [-1, 1], "dot", or "euclidean" (minus the distance).
        temperature: divides the similarity, > 0: a number, for each of which `torch.compile` has
            its program, or a tensor (), on the CPU or beside the features, which may be annealed
            within one. A tensor that requires a gradient gets it; a copy of the features, three
            maps (B, C, P) and two boolean ones are then held until backward. What a tensor holds on
            a device is not checked.
        absent: "mask" takes absent classes out of the denominator and ignores pixels labelled with
            one; "floor" (cosine only) keeps them in at cosine -1, and such pixels stay valid.
        ignore_index: label of pixels without a class, outside 0..C-1.
        label_smoothing: eps in [0, 1], as in `torch.nn.functional.cross_entropy`: targets become
            (1 - eps) t_ic + eps / C sum_k t_ik, under "mask" over the classes that are present. The
            weights of "mean" stay those of the targets themselves, and a pixel of a class of weight
            0 keeps its smoothed part. Above 0, soft targets (B, C, P) are held.
        reduction: "mean" divides by the summed weights w_i cw_{y_i} (soft: w_i t_ic cw_c; note that
            `torch.nn.functional.cross_entropy` divides soft targets by N), "sum", or "none".
        backend: "auto", or an implementation by name, which then never falls back.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels (B, Z, H, W), (B, H, W),
        (B, P) or (N,), soft targets (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); prototypes
        (C, D); present, class_weight (C,); pixel_weight like hard labels. Result () for "mean" and
        "sum", else the pixels' shape.

    Returns:
        Loss in nats, float32 (float64 for float64 features). Ignored pixels give exactly 0 and
        gradient 0 even where their features are NaN; with no valid pixel the loss is exactly 0 with
        zero, connected gradients. A pixel of zero length has cosine 0 to everything and gradient 0.
        Gradients go to features and, where they require it, to prototypes and a temperature, once:
        differentiating them again raises.

    Raises:
        ValueError: shapes, devices or settings disagree, or (CPU) a label is no class. On a GPU a
            wrong label turns the loss into NaN instead; `check_labels` names it.
        TypeError: a wrong dtype, or a gradient asked for labels or weights.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M2) to (M5) of docs/maths.md.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        >>> loss = pixel_prototype_contrast(features, torch.tensor([0, 1, 255]), torch.eye(2))
        >>> f"{loss.item():.6f}"
        '0.000046'
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    num_classes = prototypes.shape[0]
    settings = ContrastSettings(
        similarity, temperature, absent, ignore_index, label_smoothing, reduction, backend
    )
    check_per_class(pixels, "present", present, num_classes, boolean=True)
    check_per_class(pixels, "class_weight", class_weight, num_classes)
    call = ContrastCall(
        pixels.features,
        read_targets(pixels, labels, num_classes, ignore_index),
        prototypes,
        present,
        class_weight,
        read_pixel_weight(pixels, pixel_weight),
        settings.similarity,
        placed_temperature(settings.temperature, features),
        settings.absent == "floor",
        settings.ignore_index,
    )
    loss = contrast_of(call, settings.reduction, settings.backend, float(settings.label_smoothing))
    return pixels.restored(loss) if settings.reduction == "none" else loss


def contrast_of(
    call: ContrastCall, reduction: str, backend: Backend, label_smoothing: float = 0.0
) -> Tensor:
    """The same of a call that has been checked, with pixels (B, P)."""
    operator = "logits" if is_learnt(call.temperature) else "contrast"
    chosen = choose(backend, operator, call.features, call.similarity)
    return contrast(call, reduction, chosen, label_smoothing)
