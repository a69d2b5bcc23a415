"""Pseudo labels from the nearest prototype: `transfer_labels`."""

import math
from numbers import Real
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import TransferCall
from protocontrast.checks import check_choice, check_ignore_index, check_number, public, sentence
from protocontrast.functional.pixels import Pixels, check_per_class, check_prototypes, read_features
from protocontrast.functional.settings import SIMILARITIES, Backend, Similarity, read_temperature
from protocontrast.ops.backend import choose
from protocontrast.ops.transfer import transfer

MEASURES = ("confidence", "similarity")

Measure = Literal["confidence", "similarity"]


class TransferredLabels(NamedTuple):
    """Pseudo labels and what they were kept by.

    Attributes:
        labels: int64, the pixels' shape; `ignore_index` where the measure is below its threshold.
        confidence: the measure's value, the pixels' shape, also where the label was dropped.
    """

    labels: Tensor
    confidence: Tensor


RANGES = {"confidence": (0.0, 1.0), "cosine": (-1.0, 1.0), "euclidean": (-math.inf, 0.0)}
"""Of a measure: the confidence, or the similarity itself."""
ROUNDING = 0.01
"""By how much a threshold made of 16-bit numbers may lie beyond the range of its measure."""


def check_threshold(threshold: float, kind: str, lowest: float = -math.inf) -> None:
    """ValueError unless a number that a measure of this kind may reach, or infinite.

    A number below the measure's range keeps every label; below `lowest` it is refused, too.
    """
    check_number("threshold", threshold)
    low, high = RANGES.get(kind, (-math.inf, math.inf))
    if abs(threshold) != math.inf and not lowest <= threshold <= high + ROUNDING:
        within = f"<= {high:g}" if math.isinf(low) else f"in [{low:g}, {high:g}]"
        hint = "math.inf keeps no label, -math.inf every one."
        name = "a confidence" if kind == "confidence" else f"a {kind} similarity"
        requirement = f"{within} as {name} is"
        raise ValueError(sentence("threshold", requirement, repr(threshold), hint))


def read_threshold(
    pixels: Pixels, threshold: float | Tensor, num_classes: int, kind: str
) -> float | Tensor:
    """A number that a measure of this kind may reach, or one per class (C,)."""
    if isinstance(threshold, Tensor):
        threshold = threshold.expand(num_classes) if threshold.dim() == 0 else threshold
        check_per_class(pixels, "threshold", threshold, num_classes)
        return threshold
    if not isinstance(threshold, Real) or isinstance(threshold, bool):
        requirement = "to be a number or a (C,) tensor"
        raise TypeError(sentence("threshold", requirement, type(threshold).__name__))
    check_threshold(threshold, kind)
    return float(threshold)


@public
def transfer_labels(
    features: Tensor,
    prototypes: Tensor,
    *,
    present: Tensor | None = None,
    threshold: float | Tensor = 0.8,
    measure: Measure = "confidence",
    similarity: Similarity = "cosine",
    temperature: float | Tensor = 0.1,
    ignore_index: int = 255,
    backend: Backend = "auto",
) -> TransferredLabels:
    """Label every pixel by its nearest prototype, where that is sure enough.

        y_i = argmax_c sim(f_i, p_c)  if  m_i >= threshold_{y_i},  else ignore_index

    with m_i the softmax over the present classes at `temperature`, or the similarity itself.

    Args:
        features: pixels, any memory format.
        prototypes: one row per class; rows of absent classes are never read.
        present: which classes have a prototype. None: all, but under "cosine" all-zero rows are
            absent.
        threshold: one number, or one per class. A "confidence" lies in (0, 1], a cosine in [-1, 1];
            a number that no pixel can reach is refused, but for math.inf, which keeps no label.
            Thresholds per class are data and not looked at: a class whose own is out of reach gets
            no label. With 19 classes at temperature 0.1 a confidence of 0.8
            needs a cosine lead of 0.43 over tied rivals.
        measure: "confidence" or "similarity".
        similarity: "cosine", "dot", or "euclidean" (minus the distance).
        temperature: of the confidence, > 0; the nearest prototype does not depend on it. A number,
            or a tensor (), which a compiled program takes without another compilation.
        ignore_index: label of pixels that are not sure enough.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); prototypes (C, D); present,
        threshold (C,). Both results have the pixels' shape: (B, Z, H, W), (B, H, W), (B, P) or
        (N,).

    Returns:
        `TransferredLabels`, without gradient. Ties go to the lowest class. No class present:
        ignored, confidence 0. A NaN pixel: ignored, confidence NaN.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892 (non-parametric label transfer); (M6) of
        docs/maths.md.

    Example:
        >>> import torch
        >>> found = transfer_labels(torch.tensor([[2.0, 0.1], [1.0, 1.0]]), torch.eye(2))
        >>> found.labels.tolist()
        [0, 255]
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    check_choice("similarity", similarity, SIMILARITIES)
    check_choice("measure", measure, MEASURES)
    with torch.no_grad():
        temperature = read_temperature(temperature, features)
    num_classes = prototypes.shape[0]
    check_ignore_index(ignore_index, num_classes)
    check_per_class(pixels, "present", present, num_classes, boolean=True)
    kind = similarity if measure == "similarity" else measure
    threshold = read_threshold(pixels, threshold, num_classes, kind)
    with torch.no_grad():
        call = TransferCall(
            pixels.features, prototypes, present,
            threshold if isinstance(threshold, Tensor) else None,
            0.0 if isinstance(threshold, Tensor) else threshold,
            measure, similarity, temperature, ignore_index,
        )  # fmt: skip
        labels, confidence = transfer(call, choose(backend, "transfer", features, similarity))
    return TransferredLabels(pixels.restored(labels), pixels.restored(confidence))
