"""Losses on class scores: `entropy`, `mrkld`, `similarity_kl`, `symmetric_cross_entropy`."""

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from protocontrast.checks import (
    check_factor,
    check_ignore_index,
    is_number,
    public,
    sentence,
    shown,
)
from protocontrast.functional.class_scores import at_label, read_scores, same_as
from protocontrast.functional.pixels import read_checked_labels
from protocontrast.functional.settings import Reduction


@public
def entropy(
    logits: Tensor, *, pixel_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Entropy of the predicted class distribution.

        loss_i = -w_i sum_c p_ic log p_ic,    p_i = softmax(logits_i)

    This is the true entropy. Give it logits, not probabilities: several released trainers, BiCL's
    among them, take a softmax and then a log-softmax of that. Such a loss lies between
    ln(e + C - 1) - 1 and ln C, 2.03 to 2.94 for 19 classes, cannot reach 0 and hardly moves, so a
    weight that was found for it (0.3, 0.4) means something else here.

    Args:
        logits: class scores of pixels; a class at -inf is absent.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        reduction: "mean" divides by the summed weights, "sum", or "none".

    Shape:
        logits (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); pixel_weight (B, Z, H, W), (B, H,
        W), (B, P) or (N,). Result () for "mean" and "sum", else the pixels' shape.

    Returns:
        Nats, in [0, ln C], float32 (float64 for float64 logits). Ignored pixels and pixels without
        a class give exactly 0 and gradient 0.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype, or a gradient asked for the weights.

    Source:
        Vu et al., CVPR 2019, arXiv 1811.12833 (minimised on the target); (M14) of docs/maths.md.

    Example:
        >>> import torch
        >>> f"{entropy(torch.zeros(1, 19, 2, 2)).item():.4f}"
        '2.9444'
    """
    scores = read_scores("logits", logits, pixel_weight, reduction)
    log_share = log_softmax(scores.values, dim=1)
    # An absent class has share 0 and adds 0, which 0 * -inf is not.
    losses = -(log_share.exp() * log_share.masked_fill(log_share == -torch.inf, 0)).sum(dim=1)
    return scores.reduced(losses, reduction)


@public
def mrkld(
    logits: Tensor, *, pixel_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy of the uniform distribution against the predicted one.

        loss_i = -w_i (1/C) sum_c log p_ic,    p_i = softmax(logits_i)

    Up to a constant this is the Kullback-Leibler divergence from uniform, the "model regulariser"
    of self-training: it keeps predictions on pseudo labels from becoming certain. To take it on
    labelled pixels alone pass `pixel_weight=(labels != 255).float()`.

    Args:
        logits: class scores of pixels; a class at -inf is absent and not among the C.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        reduction: "mean" divides by the summed weights, "sum", or "none".

    Shape:
        logits (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); pixel_weight (B, Z, H, W), (B, H,
        W), (B, P) or (N,). Result () for "mean" and "sum", else the pixels' shape.

    Returns:
        Nats, at least ln C, which a uniform prediction has; float32 (float64 for float64 logits).
        Ignored pixels and pixels without a class give exactly 0 and gradient 0.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype, or a gradient asked for the weights.

    Source:
        Zou et al., ICCV 2019, arXiv 1908.09822 (MRKLD); (P1) of docs/parts.md.

    Example:
        >>> import torch
        >>> f"{mrkld(torch.zeros(1, 19)).item():.4f}"
        '2.9444'
    """
    scores = read_scores("logits", logits, pixel_weight, reduction)
    present = scores.values != -torch.inf
    log_share = torch.where(present, log_softmax(scores.values, dim=1), 0)
    losses = -log_share.sum(dim=1) / present.sum(dim=1).clamp_min(1)
    return scores.reduced(losses, reduction)


@public
def similarity_kl(
    logits: Tensor,
    target_logits: Tensor,
    *,
    pixel_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Kullback-Leibler divergence of a prediction from that of another view of the same pixels.

        loss_i = w_i sum_c q_ic (log q_ic - log p_ic),  q = softmax(target_logits), p likewise

    With `prototype_logits` of a student's features on a strongly augmented image, and of a
    teacher's on the weakly augmented one, it is the consistency of similarities to prototypes. The
    temperature belongs to those logits.

    Args:
        logits: of the view that learns; a class at -inf is absent.
        target_logits: of the view that teaches; never gets a gradient.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        reduction: "mean" divides by the summed weights, "sum", or "none". The released code divides
            by C as well: its weight 10 is 10 / C here.

    Shape:
        logits, target_logits (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); pixel_weight (B,
        Z, H, W), (B, H, W), (B, P) or (N,). Result () for "mean" and "sum", else the pixels' shape.

    Returns:
        Nats, >= 0; infinite where the learning view lacks a class that the other gives a share.
        float32 (float64 for float64 logits). Ignored pixels and pixels where either view has no
        class give exactly 0 and gradient 0.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype, or a gradient asked for the weights.

    Source:
        Zhang et al., CVPR 2021, arXiv 2101.10979 (consistency under augmentations); (P2) of
        docs/parts.md.

    Example:
        >>> import torch
        >>> certain, even = torch.tensor([[50.0, 0.0]]), torch.zeros(1, 2)
        >>> f"{similarity_kl(even, certain).item():.4f}"
        '0.6931'
    """
    scores = read_scores("logits", logits, pixel_weight, reduction)
    target = same_as(scores, "target_logits", target_logits, "logits").detach()
    scores = scores.without((target == -torch.inf).all(dim=1))
    log_target = log_softmax(torch.where(scores.weight[:, None] != 0, target, 0), dim=1)
    share = log_target.exp()
    apart = torch.where(share == 0, 0, log_target - log_softmax(scores.values, dim=1))
    return scores.reduced((share * apart).sum(dim=1), reduction)


@public
def symmetric_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    cross_entropy_weight: float = 0.1,
    reverse_weight: float = 1.0,
    floor: float = 1e-4,
    pixel_weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of labels and prediction, in both roles.

        loss_i = w_i (a CE_i + b RCE_i),  CE_i = -log p_iy,  RCE_i = -log(floor) (1 - p_iy)

    The reverse term takes the prediction as the truth and the one-hot label, raised to `floor`, as
    the estimate. It is bounded, so a wrong label pulls only so much.

    Args:
        logits: class scores of pixels; a class at -inf is absent.
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        cross_entropy_weight: a, any finite number.
        reverse_weight: b, any finite number.
        floor: of the one-hot label, in (0, 1]; 1 switches the reverse term off.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        ignore_index: label of pixels without a class, outside 0..C-1.
        reduction: "mean" divides by the summed weights of labelled pixels, "sum", or "none".

    Shape:
        logits (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); labels, pixel_weight (B, Z, H,
        W), (B, H, W), (B, P) or (N,). Result () for "mean" and "sum", else the pixels' shape.

    Returns:
        Nats, float32 (float64 for float64 logits). The reverse term alone lies in [0, -log(floor)],
        at floor 1e-4 up to 9.2103. A label whose class is at -inf is impossible: the reverse term
        is at its upper end, and the other infinite unless its weight is 0. Ignored pixels and
        pixels without a class give exactly 0 and gradient 0; no valid pixel gives exactly 0.

    Raises:
        ValueError: shapes, devices or settings disagree, or (CPU) a label is no class. On a GPU a
            wrong label turns the loss into NaN instead.
        TypeError: a wrong dtype, or a gradient asked for the weights.

    Source:
        Wang et al., ICCV 2019, arXiv 1908.06112, with the weights of Zhang et al., CVPR 2021, arXiv
        2101.10979; (P3) of docs/parts.md.

    Example:
        >>> import torch
        >>> even = torch.zeros(1, 19)
        >>> loss = symmetric_cross_entropy(even, torch.tensor([3]), cross_entropy_weight=0)
        >>> f"{loss.item():.4f}"
        '8.7256'
    """
    scores = read_scores("logits", logits, pixel_weight, reduction)
    check_factor("cross_entropy_weight", cross_entropy_weight)
    check_factor("reverse_weight", reverse_weight)
    if not is_number(floor) or not 0 < floor <= 1:
        raise ValueError(sentence("floor", "to be a number in (0, 1]", shown(floor)))
    check_ignore_index(ignore_index)
    classes = read_checked_labels(
        scores.pixels, labels, scores.pixels.channels, ignore_index
    ).long()
    scores = scores.without(classes == ignore_index)
    classes = torch.where(scores.weight != 0, classes, 0)
    log_share = at_label(log_softmax(scores.values, dim=1), classes)
    losses = float(reverse_weight) * (-math.log(floor) * (1 - log_share.exp()))
    if cross_entropy_weight != 0:  # a term without weight may be infinite
        losses = losses - float(cross_entropy_weight) * log_share
    return scores.reduced(losses, reduction)
