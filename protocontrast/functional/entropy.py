"""Uncertainty of a prediction as a loss: `entropy`."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from protocontrast.checks import public
from protocontrast.functional.class_scores import read_scores
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
