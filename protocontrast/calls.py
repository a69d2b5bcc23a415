"""What an implementation is given: one named tuple per operator, tensors first, then settings.

A call goes whole from the public function to the leaf of every backend. Pixels are (B, D, P) here;
the naive backend reads the same calls with its pixels as rows, (N, D). What is None was not given.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def accumulation_dtype(values: Tensor) -> torch.dtype:
    """Of sums and results: float64 for float64 features or logits, else float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


class ContrastCall(NamedTuple):
    """Pixels against prototypes (C, D): (M3) to (M5).

    Labels (B, P), or soft targets (B, C, P); presence and class weights (C,), pixel weights (B, P).
    """

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    present: Tensor | None
    class_weight: Tensor | None
    pixel_weight: Tensor | None
    similarity: str
    temperature: float | Tensor
    keep_absent: bool
    ignore_index: int


class DistributionCall(NamedTuple):
    """Pixels against means and variances (C, D): (D3)."""

    features: Tensor
    labels: Tensor
    prototypes: Tensor
    variance: Tensor
    present: Tensor | None
    class_weight: Tensor | None
    pixel_weight: Tensor | None
    normalize: bool
    temperature: float | Tensor
    ignore_index: int


class LogitsCall(NamedTuple):
    """Similarities of pixels to prototypes (C, D) over the temperature: (M2)."""

    features: Tensor
    prototypes: Tensor
    present: Tensor | None
    similarity: str
    temperature: float | Tensor


class ClassSumsCall(NamedTuple):
    """Sums of the pixels of each class, of each image or of all: (M1)."""

    features: Tensor
    labels: Tensor
    pixel_weight: Tensor | None
    num_classes: int
    normalize: bool
    per_image: bool
    ignore_index: int


class ClassSquaresCall(NamedTuple):
    """Sums of squared deviations from means (G, C, D), G = B per image, else 1: (D1)."""

    features: Tensor
    labels: Tensor
    pixel_weight: Tensor | None
    means: Tensor
    normalize: bool
    ignore_index: int


class TransferCall(NamedTuple):
    """Labels of the nearest prototype: (M6); thresholds (C,) stand in for the one number."""

    features: Tensor
    prototypes: Tensor
    present: Tensor | None
    class_threshold: Tensor | None
    threshold: float
    measure: str
    similarity: str
    temperature: float | Tensor
    ignore_index: int


class TargetPassCall(NamedTuple):
    """Labels, class sums and contrast of the target in one read: (M1), (M3), (M6), (M7).

    Static labels (B, P); soft targets (B, C, P), None: the fused labels; masses (P,) of transferred
    labels where the targets have none; prototypes (C, D) of the contrast and of the transfer, None:
    the same; presence (C,) and which classes carry loss, None: no loss is taken.
    """

    features: Tensor
    static: Tensor | None
    targets: Tensor | None
    filling: Tensor | None
    prototypes: Tensor
    nearest: Tensor | None
    present: Tensor
    counted: Tensor | None
    threshold: float
    measure: str
    temperature: float | Tensor
    keep_absent: bool
    normalize: bool
    ignore_index: int
    transfer: bool
    wants_sums: bool
    wants_gradient: bool = False

    def of_labels(self) -> TransferCall:
        """The transfer among its parts."""
        nearest = self.prototypes if self.nearest is None else self.nearest
        return TransferCall(
            self.features, nearest, self.present, None, self.threshold, self.measure,
            "cosine", self.temperature, self.ignore_index,
        )  # fmt: skip

    def used(self) -> Tensor:
        """(C,) classes that are there and carry loss."""
        none = torch.zeros_like(self.present)
        return none if self.counted is None else self.counted & self.present

    def of_losses(self, targets: Tensor, class_weight: Tensor | None = None) -> ContrastCall:
        """The contrast among its parts; what its used classes weigh, None: 1."""
        used = self.used()
        share = used if class_weight is None else torch.where(used, class_weight, 0)
        return ContrastCall(
            self.features, targets, self.prototypes, self.present, share, None,
            "cosine", self.temperature, self.keep_absent, self.ignore_index,
        )  # fmt: skip

    def contrasted(self, labels: Tensor, filled: Tensor) -> Tensor:
        """What the losses are taken of: fused labels, or the targets, filled by the transfer."""
        if self.targets is None:
            return labels
        return filled if self.transfer else self.targets


class PairContrastCall(NamedTuple):
    """Anchors (A, D) against keys (K, D), and negatives (M, D) in their place: (M17).

    Labels are int64, one per row; weights (A,).
    """

    anchors: Tensor
    anchor_labels: Tensor
    keys: Tensor
    key_labels: Tensor
    negatives: Tensor | None
    negative_labels: Tensor | None
    anchor_weight: Tensor | None
    similarity: str
    temperature: float | Tensor
    all_in_denominator: bool
    exclude_self: bool
    ignore_index: int


class PairRolesCall(NamedTuple):
    """The same with all keys in one matrix: a label says of which anchors a key is a positive.

    Another one says of which it is no negative; an ignored label, that it is none at all.
    """

    anchors: Tensor
    anchor_labels: Tensor
    keys: Tensor
    positive_labels: Tensor
    negative_labels: Tensor
    anchor_weight: Tensor | None
    similarity: str
    temperature: float
    all_in_denominator: bool
    exclude_self: bool
    ignore_index: int


class UpsampledCall(NamedTuple):
    """Logits (B, C, h, w) against labels (B, H, W), or (B, C, z, h, w) and (B, Z, H, W): (M16)."""

    logits: Tensor
    labels: Tensor
    class_weight: Tensor | None
    ignore_index: int
    align_corners: bool
    label_smoothing: float

    def averaged(self, loss: Tensor, mass: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The summed loss () over the mass of its pixels (), and its gradient, in place."""
        empty, mass = mass == 0, torch.where(mass == 0, 1, mass)
        if self.label_smoothing:  # what is smoothed may count where nothing weighs
            loss, mass = torch.where(empty, 0, loss), torch.where(empty, torch.inf, mass)
        return loss / mass, gradient.div_(mass)


class StretchCall(NamedTuple):
    """Logits of volumes (B, C, z, h, w) brought to a depth: (M16)."""

    logits: Tensor
    depth: int
    align_corners: bool


class LabelCountsCall(NamedTuple):
    """Pixels of each class in each cell, from labels (B, H, W) and the cell of row and column."""

    labels: Tensor
    rows: Tensor
    columns: Tensor
    num_classes: int
    height: int
    width: int
    ignore_index: int


class Domain(NamedTuple):
    """Features (B, D, P); labels (B, P) of the means; targets (B, P) or (B, C, P) of the loss."""

    features: Tensor
    labels: Tensor
    targets: Tensor

    def of(self, images: slice) -> "Domain":
        """Some of the images, as views."""
        return Domain(self.features[images], self.labels[images], self.targets[images])


class BidirectionalCall(NamedTuple):
    """Two domains, each against the class means of the other: (M12).

    Every pixel counts alike; or every class, (M18), from `whole_class` pixels on, if that is not 0.
    """

    source: Domain
    target: Domain
    num_classes: int
    temperature: float
    keep_absent: bool
    ignore_index: int
    pairwise: bool
    whole_class: int


class StepCall(NamedTuple):
    """A step of `BiCL` whose banks move before its contrasts, in both directions: (M13).

    Features of the target (B, D, P), its static labels (B, P), their counts (B, C, P) and a cell's
    pixels (P,), or None; of each bank prototypes (C, D), count, present and skipped (C,), which are
    written, as are bias (C, D), presence and count (C,) of the bias. `momenta` of both banks and of
    the bias, `copies`: it begins as it is measured; `whole_class` as in `BidirectionalCall`.
    `over_ranks` makes means and counts of one rank those of all, if there are several.
    """

    source: Domain
    target: Tensor
    static: Tensor | None
    targets: Tensor | None
    filling: Tensor | None
    source_bank: tuple[Tensor, ...]
    target_bank: tuple[Tensor, ...]
    bias: tuple[Tensor, ...]
    threshold: float
    measure: str
    temperature: float | Tensor
    keep_absent: bool
    normalize: str | bool
    ignore_index: int
    momenta: tuple[float, float, float]
    copies: bool
    calibrates: bool
    whole_class: int
    weights: tuple[float, float]
    over_ranks: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
