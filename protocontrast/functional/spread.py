"""The mean feature among the prototypes: `spread`."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from protocontrast.calls import LogitsCall
from protocontrast.checks import (
    check_choice,
    check_ignore_index,
    public,
)
from protocontrast.functional.class_prototypes import class_prototypes
from protocontrast.functional.pixels import (
    check_per_class,
    check_prototypes,
    read_checked_labels,
    read_features,
)
from protocontrast.functional.settings import SIMILARITIES, Backend, Similarity
from protocontrast.functional.temperature import read_temperature
from protocontrast.ops.backend import choose
from protocontrast.ops.logits import logits

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
