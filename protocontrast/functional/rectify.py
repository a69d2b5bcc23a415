"""Probabilities corrected by prototypes: `rectify`."""

import torch
from torch import Tensor

from protocontrast.checks import (
    check_device,
    check_floating,
    check_shape,
    public,
)
from protocontrast.functional.class_scores import widened
from protocontrast.functional.pixels import read_features


@public
def rectify(probabilities: Tensor, weights: Tensor) -> Tensor:
    """Multiply class probabilities by weights of the classes, and normalise again.

        q_ic = p_ic w_ic / sum_k p_ik w_ik

    With `p` the probabilities of a head, perhaps saved long ago, and `w` the present similarities,
    `prototype_logits(features, prototypes, similarity="euclidean", temperature=1.0).softmax(1)`,
    this is online denoising of pseudo labels; `select_labels` makes labels of the result.

    Args:
        probabilities: of the classes, >= 0.
        weights: >= 0, of the same pixels; what multiplies all of a pixel's weights cancels.

    Shape:
        probabilities, weights (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C). Result the same.

    Returns:
        Probabilities, float32 (float64 for float64), differentiable in both. Where every product is
        0, the probabilities as they were.

    Raises:
        ValueError: shapes or devices differ.
        TypeError: a wrong dtype.

    Source:
        Zhang et al., CVPR 2021, arXiv 2101.10979 (prototypical denoising); (P6) of docs/parts.md.

    Example:
        >>> import torch
        >>> rectify(torch.tensor([[0.6, 0.4]]), torch.tensor([[0.2, 0.8]])).tolist()
        [[0.27272728085517883, 0.7272727489471436]]
    """
    read_features(probabilities, "probabilities")
    check_floating("weights", weights)
    shape = tuple(probabilities.shape)
    check_shape("weights", weights, shape, "like probabilities")
    check_device("weights", weights, probabilities, "probabilities")
    shares = widened(probabilities)
    product = shares * weights.to(shares.dtype)
    total = product.sum(dim=1, keepdim=True)
    return torch.where(total == 0, shares, product / torch.where(total == 0, 1, total))
