"""Regularisation of confident predictions: `mrkld`."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from protocontrast.checks import public
from protocontrast.functional.class_scores import read_scores
from protocontrast.functional.settings import Reduction


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
