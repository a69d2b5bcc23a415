"""Contrast between pairs of pixels as a module: `PairContrastLoss`."""

from torch import Tensor

from protocontrast.checks import called
from protocontrast.functional.pair_contrast import pair_contrast
from protocontrast.functional.settings import (
    Backend,
    Denominator,
    PairSettings,
    Reduction,
    Similarity,
)
from protocontrast.module import Configured


class PairContrastLoss(Configured):
    """`pair_contrast` with its settings stored.

    Args:
        similarity: "cosine", "dot" or "euclidean".
        temperature: > 0, a number or a tensor (); an `nn.Parameter` is learnt.
        denominator: "negatives" or "all".
        exclude_self: key i is anchor i itself, and no positive of its own.
        ignore_index: label of rows without a class.
        reduction: "mean", "sum" or "none".
        backend: "auto", or an implementation by name.

    Returns:
        From `forward(anchors, anchor_labels, keys=None, key_labels=None, *, negatives=None,
        negative_labels=None, anchor_weight=None)`: the loss. Without keys the anchors are the keys.

    Source:
        Wang et al., ICCV 2021, arXiv 2101.11939; (M17) of docs/pairs.md.

    Example:
        >>> import torch
        >>> loss = PairContrastLoss(temperature=1.0, exclude_self=True)
        >>> f"{loss(torch.eye(3)[[0, 0, 1]], torch.tensor([4, 4, 7])).item():.4f}"
        '0.3133'
    """

    Settings = PairSettings

    @called("PairContrastLoss")
    def __init__(
        self,
        *,
        similarity: Similarity = "cosine",
        temperature: float | Tensor = 0.1,
        denominator: Denominator = "negatives",
        exclude_self: bool = False,
        ignore_index: int = 255,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.similarity, self.temperature, self.denominator = similarity, temperature, denominator
        self.exclude_self, self.ignore_index = exclude_self, ignore_index
        self.reduction, self.backend = reduction, backend
        self.check()

    def forward(
        self,
        anchors: Tensor,
        anchor_labels: Tensor,
        keys: Tensor | None = None,
        key_labels: Tensor | None = None,
        *,
        negatives: Tensor | None = None,
        negative_labels: Tensor | None = None,
        anchor_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss in nats: () for "mean" and "sum", else (A,)."""
        if keys is None and key_labels is None:
            keys, key_labels = anchors, anchor_labels
        return pair_contrast(
            anchors,
            anchor_labels,
            keys,  # type: ignore[arg-type]  # one without the other is refused with a sentence
            key_labels,  # type: ignore[arg-type]
            negatives=negatives,
            negative_labels=negative_labels,
            anchor_weight=anchor_weight,
            **self.given(),
        )
