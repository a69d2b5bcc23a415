"""Cross-entropy that bears wrong labels: `symmetric_cross_entropy`."""

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
from protocontrast.functional.class_scores import at_label, read_classes, read_scores
from protocontrast.functional.settings import Reduction


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
    classes = read_classes(scores.pixels, labels, scores.pixels.channels, ignore_index)
    scores = scores.without(classes == ignore_index)
    classes = torch.where(scores.weight != 0, classes, 0)
    log_share = at_label(log_softmax(scores.values, dim=1), classes)
    losses = float(reverse_weight) * (-math.log(floor) * (1 - log_share.exp()))
    if cross_entropy_weight != 0:  # a term without weight may be infinite
        losses = losses - float(cross_entropy_weight) * log_share
    return scores.reduced(losses, reduction)
