"""Pseudo labels from probabilities: `rectify`, `select_labels` and `confident_share`."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from protocontrast.checks import (
    check_choice,
    check_flag,
    check_ignore_index,
    check_like,
    check_share,
    public,
)
from protocontrast.functional.class_scores import widened
from protocontrast.functional.pixels import read_features
from protocontrast.functional.transfer import TransferredLabels, read_threshold

SELECT_MEASURES = ("confidence", "log_odds")

SelectMeasure = Literal["confidence", "log_odds"]


class Best(NamedTuple):
    """The most probable class of every pixel, (B, P) each."""

    labels: Tensor
    confidence: Tensor
    log_odds: Tensor


def most_probable(probabilities: Tensor) -> Best:
    """The best class of (B, C, P), its probability, and log p - log(1 - p)."""
    shares = widened(probabilities)
    confidence, labels = shares.max(dim=1)
    # The others are summed on their own: 1 - p is 0 in float32 long before they are.
    others = shares.scatter(1, labels[:, None], 0).sum(dim=1)
    return Best(labels, confidence, confidence.log() - others.log())


def _number_of(share: float, pixels: int) -> int:
    """The largest number of pixels that is no larger share of them."""
    number = int(share * pixels)
    # A product may round down what was written: 0.29 * 100 is below 29.
    return number + 1 if number < pixels and (number + 1) / pixels <= share else number


@public
@torch.no_grad()
def select_labels(
    probabilities: Tensor,
    threshold: float | Tensor,
    *,
    measure: SelectMeasure = "confidence",
    image_share: float = 0.0,
    ignore_index: int = 255,
) -> TransferredLabels:
    """Label every pixel by its most probable class, where that is sure enough.

        y_i = argmax_c p_ic  if  m_i >= threshold_{y_i}  or i is among its image's surest,

    else ignore_index, with m_i the probability of that class, or its log-odds log p - log(1 - p).
    The class's own threshold decides, never that of another class.

    Args:
        probabilities: softmax over the classes, of at least float32 if classes are to differ near
            1.
        threshold: one number, or one per class, such as `ClassThresholds.thresholds()`; in [0, 1]
            for "confidence", any for "log_odds". Infinity keeps nothing. Another number that
            no pixel can reach is refused; thresholds per class are data and not looked at.
        measure: "confidence", or "log_odds", which still tells pixels apart whose probability
            rounds to 1.
        image_share: in [0, 1]; this share of each image's pixels, rounded down, is kept whatever
            the class: those strictly surer than the surest pixel left out, so that ties at the edge
            are dropped.
        ignore_index: label of pixels that are not sure enough.

    Shape:
        probabilities (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); threshold (C,). Both
        results have the pixels' shape: (B, Z, H, W), (B, H, W), (B, P) or (N,), which is one image.

    Returns:
        `TransferredLabels(labels, confidence)`, int64 and float32 (float64), without gradient. The
        second is the measure's value, also where the label was dropped. Ties go to the lowest
        class. A NaN pixel is ignored.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype.

    Source:
        Zou et al., ECCV 2018, arXiv 1810.07911 (thresholds per class); the share per image as in
        the release of Lee et al., ECCV 2022; (M15) of docs/maths.md and (P11) of docs/parts.md.

    Example:
        >>> import torch
        >>> probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
        >>> select_labels(probabilities, torch.tensor([0.8, 0.5])).labels.tolist()
        [0, 255, 1]
    """
    pixels = read_features(probabilities, "probabilities")
    check_choice("measure", measure, SELECT_MEASURES)
    check_share("image_share", image_share)
    check_ignore_index(ignore_index, pixels.channels)
    best = most_probable(pixels.features)
    value = best.confidence if measure == "confidence" else best.log_odds
    least = read_threshold(pixels, threshold, pixels.channels, measure)
    if isinstance(least, Tensor):
        least = least[best.labels]
    # The odds of a class without any other are infinite, too.
    kept = (value >= least) & (least < torch.inf)
    count = value.shape[1]
    number = _number_of(float(image_share), count)
    if number:
        sureness = torch.where(best.log_odds.isnan(), -torch.inf, best.log_odds)
        edge = torch.full_like(sureness[:, :1], -torch.inf)
        if number < count:
            surest = sureness.topk(number + 1, dim=1, sorted=False).values
            edge = surest.amin(dim=1, keepdim=True)
        kept = kept | (sureness > edge)
    labels = torch.where(kept, best.labels, ignore_index)
    return TransferredLabels(pixels.restored(labels), pixels.restored(value))


@public
@torch.no_grad()
def confident_share(probabilities: Tensor, threshold: float, *, per_image: bool = False) -> Tensor:
    """Share of the pixels whose most probable class reaches a probability.

        s = (1/N) #{ i : max_c p_ic >= threshold }

    Class-mix trainers weigh the target's loss by it.

    Args:
        probabilities: softmax over the classes.
        threshold: in [0, 1]; 0.968 in DACS and what follows it.
        per_image: one share per image.

    Shape:
        probabilities (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C), which is one image. Result
        (), or (B,).

    Returns:
        In [0, 1], float32, without gradient; 0 without pixels. A NaN pixel is not confident.

    Raises:
        ValueError: shapes or settings disagree.
        TypeError: a wrong dtype.

    Source:
        Tranheden et al., WACV 2021, arXiv 2007.08702; (P12) of docs/parts.md.

    Example:
        >>> import torch
        >>> confident_share(torch.tensor([[0.99, 0.01], [0.6, 0.4]]), 0.968).item()
        0.5
    """
    pixels = read_features(probabilities, "probabilities")
    check_share("threshold", threshold)
    check_flag("per_image", per_image)
    sure = (widened(pixels.features.amax(dim=1)) >= float(threshold)).float()
    if per_image:
        return sure.sum(dim=1) / max(sure.shape[1], 1)
    return sure.sum() / max(sure.numel(), 1)


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
    like = tuple(probabilities.shape), "like probabilities", probabilities, "probabilities"
    check_like("weights", weights, *like)
    shares = widened(probabilities)
    product = shares * weights.to(shares.dtype)
    total = product.sum(dim=1, keepdim=True)
    return torch.where(total == 0, shares, product / torch.where(total == 0, 1, total))
