"""Losses on similarities to prototypes: `prototype_pull`, `spread`."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from protocontrast.calls import LogitsCall, accumulation_dtype
from protocontrast.checks import check_choice, check_ignore_index, public
from protocontrast.functional.class_prototypes import class_prototypes
from protocontrast.functional.class_scores import Scores, at_label, widened
from protocontrast.functional.pixels import (
    check_per_class,
    check_prototypes,
    read_checked_labels,
    read_features,
    read_pixel_weight,
)
from protocontrast.functional.settings import (
    REDUCTIONS,
    SIMILARITIES,
    Backend,
    Reduction,
    Similarity,
    read_temperature,
)
from protocontrast.ops.backend import choose
from protocontrast.ops.logits import logits


@public
def prototype_pull(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    *,
    present: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Squared distance of every pixel to its own prototype, in cosines.

        loss_i = w_i (1 - cos(f_i, p_{y_i}))^2

    A contrast is content once the own prototype is the nearest; this one goes on. With several
    prototypes per class, `labels` say which of the C rows a pixel is assigned to.

    Args:
        features: pixels, any memory format.
        labels: rows of `prototypes` or `ignore_index`, any integer dtype.
        prototypes: one per row; rows of absent classes are never read.
        present: which rows are. None: all but all-zero rows.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        ignore_index: label of pixels without a class, outside 0..C-1.
        reduction: "mean" divides by the summed weights of valid pixels, "sum", or "none".
        backend: "auto", or an implementation of the similarities by name.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels, pixel_weight (B, Z, H,
        W), (B, H, W), (B, P) or (N,); prototypes (C, D); present (C,). Result () for "mean" and
        "sum", else the pixels' shape.

    Returns:
        0 for a pixel along its prototype, 1 at a right angle, 4 opposite; float32 (float64 for
        float64 features), differentiable in features and prototypes. Ignored pixels, and those
        labelled with an absent class, give exactly 0 and gradient 0; no valid pixel gives exactly
        0. The similarities (N, C) and a copy of the features are held.

    Raises:
        ValueError: shapes, devices or settings disagree, or (CPU) a label is no class. On a GPU a
            wrong label turns the loss into NaN instead.
        TypeError: a wrong dtype, or a gradient asked for the weights.

    Source:
        Zhou et al., CVPR 2022, arXiv 2203.15102 (pixel-prototype distance); (P4) of docs/parts.md.

    Example:
        >>> import torch
        >>> pull = prototype_pull(
        ...     torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0]]), torch.zeros(3).long(),
        ...     torch.eye(2), reduction="none",
        ... )
        >>> pull.tolist()
        [0.0, 1.0, 4.0]
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    rows = prototypes.shape[0]
    check_choice("reduction", reduction, REDUCTIONS)
    check_ignore_index(ignore_index)
    check_per_class(pixels, "present", present, rows, boolean=True)
    chosen = choose(backend, "logits", features)
    given = read_pixel_weight(pixels, pixel_weight)
    classes = read_checked_labels(pixels, labels, rows, ignore_index).long()
    wide = accumulation_dtype(features)
    weight = torch.ones(classes.shape, dtype=wide, device=features.device)
    if given is not None:
        weight = given.to(wide)
    labelled = (classes != ignore_index) & (weight != 0)
    # The gradient of a pixel that is NaN is NaN even where nothing comes back to it.
    read = torch.where(labelled[:, None], pixels.features, 0)
    cosines = logits(LogitsCall(read, prototypes, present, "cosine", 1.0), chosen)
    cosine = at_label(cosines, torch.where(labelled, classes, 0))
    valid = labelled & (cosine != -torch.inf)
    weight = torch.where(valid, weight, 0)
    losses = (1 - torch.where(valid, cosine, 1)).square()
    return Scores(pixels, widened(cosines), weight).reduced(losses, reduction)


TOWARD = ("uniform", "released")

Toward = Literal["uniform", "released"]


@public
def spread(
    features: Tensor,
    labels: Tensor | None,
    prototypes: Tensor,
    *,
    toward: Toward,
    present: Tensor | None = None,
    similarity: Similarity = "dot",
    temperature: float | Tensor = 0.1,
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> Tensor:
    """How evenly the mean feature is similar to all prototypes.

        r = sum_c log softmax_c( sim(mean_i f_i, p_c) / temperature ) / (C ln C)

    "released" is r, whose *largest* value -1 is the uniform one: minimising it drives the mean
    feature away from uniform, towards some prototypes and without bound. "uniform" is -r, which is
    least, 1, where all similarities are equal. The release's authors call the term a diversity
    regulariser and did not answer which is meant, so there is no default. At temperature 100 either
    hardly moves.

    Args:
        features: pixels, any memory format.
        labels: classes 0..C-1 or `ignore_index`, any integer dtype; where not `ignore_index`, the
            pixel enters the mean. None: all pixels do.
        prototypes: one row per class; rows of absent classes are never read.
        toward: "uniform" or "released".
        present: which classes have a prototype; C counts these. None: all, but under "cosine"
            all-zero rows are absent.
        similarity: "dot", "cosine" or "euclidean" (minus the distance).
        temperature: divides the similarity, > 0: a number or a tensor (), which may be learnt.
        ignore_index: label of pixels without a class, outside 0..C-1.
        backend: "auto", or an implementation of mean and similarities by name.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels (B, Z, H, W), (B, H, W),
        (B, P) or (N,); prototypes (C, D); present (C,). Result ().

    Returns:
        float32 (float64 for float64 features), differentiable in features and prototypes; exactly 0
        with gradient 0 where no pixel enters the mean or fewer than two classes are present.

    Raises:
        ValueError: shapes, devices or settings disagree, or (CPU) a label is no class.
        TypeError: a wrong dtype.

    Source:
        Xie et al., TPAMI 2023, arXiv 2204.08808, as released; (P5) of docs/parts.md.

    Example:
        >>> import torch
        >>> features, prototypes = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.eye(2)
        >>> spread(features, None, prototypes, toward="uniform").item()
        1.0
        >>> spread(features, None, prototypes, toward="released").item()
        -1.0
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    check_choice("toward", toward, TOWARD)
    check_choice("similarity", similarity, SIMILARITIES)
    temperature = read_temperature(temperature, features)
    check_ignore_index(ignore_index)
    check_per_class(pixels, "present", present, prototypes.shape[0], boolean=True)
    chosen = choose(backend, "logits", features)
    one_class = torch.zeros(pixels.features[:, 0].shape, dtype=torch.int64, device=features.device)
    if labels is not None:
        flat = read_checked_labels(pixels, labels, prototypes.shape[0], ignore_index)
        one_class = torch.where(flat == ignore_index, 255, one_class)
    mean = class_prototypes(pixels.features, one_class, 1, backend=backend)
    row = mean.mean[..., None]
    call = LogitsCall(row, prototypes, present, similarity, temperature)
    values = logits(call, chosen)[0, :, 0]
    seen = values != -torch.inf
    number = seen.sum()
    usable = (number > 1) & (mean.count[0] > 0)
    # A softmax over nothing is NaN, and so would be the gradient of what is not used.
    log_share = log_softmax(torch.where(usable, values, 0), dim=0)
    total = torch.where(seen & usable, log_share, 0).sum()
    many = number.clamp_min(2).to(total.dtype)
    return total / (many * many.log()) * (1 if toward == "released" else -1)
