"""Class means of pixel features, and their variances: `class_prototypes`, `class_statistics`."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import ClassSquaresCall, ClassSumsCall
from protocontrast.checks import check_count, check_flag, check_ignore_index, public, sentence
from protocontrast.functional.pixels import read_features, read_labels, read_pixel_weight
from protocontrast.functional.settings import Backend
from protocontrast.ops.backend import choose
from protocontrast.ops.class_prototypes import class_squares, class_sums


class ClassPrototypes(NamedTuple):
    """Class means and how much each rests on.

    Attributes:
        mean: (C, D), or (B, C, D) per image; 0 where the count is 0.
        count: (C,) or (B, C), number of pixels or summed pixel weight.
    """

    mean: Tensor
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count, as the contract names it

    @property
    def present(self) -> Tensor:
        """Bool, (C,) or (B, C): the class occurs."""
        return self.count > 0

    def of_all(self) -> "ClassPrototypes":
        """The only set among those (1, C, D)."""
        return ClassPrototypes(self.mean[0], self.count[0])


@public
def class_prototypes(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    pixel_weight: Tensor | None = None,
    normalize: bool = False,
    per_image: bool = False,
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> ClassPrototypes:
    """Mean feature of every class: masked average pooling, in one read of the features.

        p_c = sum_{i: y_i = c} w_i f_i / sum_{i: y_i = c} w_i

    Args:
        features: pixels, any memory format.
        labels: classes 0..C-1 or `ignore_index`, any integer dtype.
        num_classes: C.
        pixel_weight: w_i >= 0, any floating dtype; 0 ignores the pixel.
        normalize: features to unit length before averaging; the mean is not renormalised.
        per_image: one set of prototypes per image.
        ignore_index: label of pixels without a class, outside 0..C-1.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels, pixel_weight (B, Z, H,
        W), (B, H, W), (B, P) or (N,). mean (C, D) and count (C,), per image (B, C, D) and (B, C).

    Returns:
        `ClassPrototypes`, float32 (float64 for float64 features), differentiable in the features. A
        pixel that is NaN makes its own class NaN and no other; ignored pixels are never read.

    Raises:
        ValueError: shapes disagree, `per_image` with (N, D) features, or (CPU) a label is no class.
        TypeError: a wrong dtype.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892 (masked average pooling); (M1) of docs/maths.md.

    Example:
        >>> import torch
        >>> features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
        >>> stats = class_prototypes(features, torch.tensor([0, 0, 255]), 2)
        >>> stats.mean.tolist(), stats.count.tolist()
        ([[2.0, 0.0], [0.0, 0.0]], [2.0, 0.0])
    """
    call = read_members(
        features, labels, num_classes, pixel_weight, normalize, per_image, ignore_index
    )
    means = class_means(call, backend)
    return means if per_image else means.of_all()


def read_members(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    pixel_weight: Tensor | None,
    normalize: bool,
    per_image: bool,
    ignore_index: int,
) -> ClassSumsCall:
    """Check what says which pixels belong to which class."""
    pixels = read_features(features)
    check_count("num_classes", num_classes)
    check_flag("normalize", normalize)
    check_flag("per_image", per_image)
    check_ignore_index(ignore_index)
    if per_image and features.dim() == 2:
        hint = "pixels given as rows have no image; pass (B, D, P)."
        requirement = "of shape (B, D, Z, H, W), (B, D, H, W) or (B, D, P) with per_image=True"
        raise ValueError(sentence("features", requirement, tuple(features.shape), hint))
    return ClassSumsCall(
        pixels.features,
        read_labels(pixels, labels, num_classes, ignore_index),
        read_pixel_weight(pixels, pixel_weight),
        num_classes,
        bool(normalize),
        bool(per_image),
        ignore_index,
    )


def class_means(call: ClassSumsCall, backend: Backend) -> ClassPrototypes:
    """Means (G, C, D) and counts (G, C) of a call that has been checked; G is B or 1."""
    sums, counts = class_sums(call, choose(backend, "class_prototypes", call.features))
    # What comes back to the mean of an absent class may be anything, and reaches no pixel.
    seen = (counts != 0)[..., None]
    mean = torch.where(seen, sums, 0) / torch.where(seen, counts[..., None], 1)
    return ClassPrototypes(mean, counts)


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
        ValueError: shapes disagree, `per_image` with (N, D) features, backend="triton" or "native",
            or (CPU) a label is no class.
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
