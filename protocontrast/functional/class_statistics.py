"""Class means with the variance of every channel: `class_statistics`."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import ClassSquaresCall
from protocontrast.checks import public
from protocontrast.functional.class_prototypes import class_means, read_members
from protocontrast.functional.pixels import read_features
from protocontrast.functional.settings import Backend
from protocontrast.ops.backend import choose
from protocontrast.ops.class_statistics import class_squares


class ClassStatistics(NamedTuple):
    """Class means, how much each rests on, and how far the features lie from them.

    Attributes:
        mean: (C, D), or (B, C, D) per image; 0 where the count is 0.
        count: (C,) or (B, C), number of pixels or summed pixel weight.
        variance: like the mean; 0 where the count is 0.
    """

    mean: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count, as in ClassPrototypes
    variance: Tensor

    @property
    def present(self) -> Tensor:
        """Bool, (C,) or (B, C): the class occurs."""
        return self.count > 0


@public
@torch.no_grad()
def class_statistics(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    pixel_weight: Tensor | None = None,
    normalize: bool = False,
    per_image: bool = False,
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> ClassStatistics:
    """Mean and variance of every class and channel, the variance around the mean itself.

        p_c = sum_{i: y_i = c} w_i f_i / n_c,    n_c = sum_{i: y_i = c} w_i
        S_c = sum_{i: y_i = c} w_i (f_i - p_c)^2 / n_c

    The features are read twice: a variance from sums of squares would lose its digits where the
    mean is large beside it.

    Args:
        features: pixels, any memory format.
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        num_classes: C.
        pixel_weight: w_i >= 0, any floating dtype; 0 ignores the pixel.
        normalize: features to unit length first; the mean is not renormalised.
        per_image: one set of statistics per image.
        ignore_index: label of pixels without a class, outside 0..C-1.
        backend: "auto", "eager" or "naive". Squares are summed in plain torch alone; "auto" takes
            the means from where `class_prototypes` does.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels, pixel_weight (B, Z, H,
        W), (B, H, W), (B, P) or (N,). mean and variance (C, D), count (C,), per image (B, C, D) and
        (B, C).

    Returns:
        `ClassStatistics`, float32 (float64 for float64 features), without gradient; the population
        variance, >= 0. A pixel that is not finite makes the variance of its own class NaN and no
        other; ignored pixels are never read.

    Raises:
        ValueError: shapes disagree, `per_image` with (N, D) features, backend="triton", or (CPU) a
            label is no class.
        TypeError: a wrong dtype.

    Source:
        Xie et al., SePiCo, arXiv 2204.08808 (diagonal variance per class); (D1) of
        docs/distributions.md.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
        >>> stats = class_statistics(features, torch.tensor([0, 0, 255]), 2)
        >>> stats.mean.tolist(), stats.variance.tolist()
        ([[2.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]])
    """
    read_features(features)
    chosen = choose(backend, "class_statistics", features)
    call = read_members(
        features, labels, num_classes, pixel_weight, normalize, per_image, ignore_index
    )
    mean, count = class_means(call, backend)
    around = ClassSquaresCall(
        call.features, call.labels, call.pixel_weight, mean, call.normalize, ignore_index
    )
    variance = class_squares(around, chosen) / torch.where(count == 0, 1, count)[..., None]
    if per_image:
        return ClassStatistics(mean, count, variance)
    return ClassStatistics(mean[0], count[0], variance[0])
