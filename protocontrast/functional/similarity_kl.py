"""Agreement of two views about their similarities: `similarity_kl`."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from protocontrast.checks import public
from protocontrast.functional.class_scores import read_scores, same_as
from protocontrast.functional.settings import Reduction


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
