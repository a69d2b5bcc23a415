"""Losses as modules: settings stored, the function of the same name called."""

from torch import Tensor

from protocontrast.checks import called, check_flag, check_labels
from protocontrast.functional import (
    BidirectionalContrast,
    bidirectional_contrast,
    pair_contrast,
    pixel_prototype_contrast,
    upsampled_cross_entropy,
)
from protocontrast.functional.settings import (
    Absent,
    Backend,
    Balance,
    BidirectionalSettings,
    ContrastSettings,
    Denominator,
    PairSettings,
    Reduction,
    Similarity,
    UpsampledSettings,
    check_class_weight,
)
from protocontrast.module import Configured


class PixelPrototypeContrastLoss(Configured):
    """`pixel_prototype_contrast` with its settings stored.

    Args:
        class_weight: (C,) weights, kept as a buffer that moves with the module.
        similarity: "cosine", "dot" or "euclidean".
        temperature: > 0, a number or a tensor (); an `nn.Parameter` is learnt.
        absent: "mask" or "floor".
        ignore_index: label of pixels without a class, outside 0..C-1.
        label_smoothing: in [0, 1].
        reduction: "mean", "sum" or "none".
        validate: check label values on every call with `check_labels`; waits for a GPU.
        backend: "auto", or an implementation by name.

    Returns:
        From `forward(features, labels, prototypes, *, present=None, pixel_weight=None)`: the loss.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M3) of docs/maths.md.

    Example:
        >>> import torch
        >>> loss = PixelPrototypeContrastLoss(temperature=1.0)
        >>> f"{loss(torch.eye(2), torch.tensor([0, 1]), torch.eye(2)).item():.4f}"
        '0.3133'
    """

    Settings = ContrastSettings
    class_weight: Tensor | None

    @called("PixelPrototypeContrastLoss")
    def __init__(
        self,
        class_weight: Tensor | None = None,
        *,
        similarity: Similarity = "cosine",
        temperature: float | Tensor = 0.1,
        absent: Absent = "mask",
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        validate: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_flag("validate", validate)
        check_class_weight(class_weight)
        self.register_buffer("class_weight", class_weight)
        self.similarity, self.temperature, self.absent = similarity, temperature, absent
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.reduction, self.validate, self.backend = reduction, validate, backend
        self.check()

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        prototypes: Tensor,
        *,
        present: Tensor | None = None,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss in nats: () for "mean" and "sum", else the pixels' shape."""
        loss = pixel_prototype_contrast(
            features,
            labels,
            prototypes,
            present=present,
            class_weight=self.class_weight,
            pixel_weight=pixel_weight,
            **self.given(),
        )
        if self.validate and not labels.is_floating_point():
            check_labels(labels, len(prototypes), ignore_index=self.ignore_index)
        return loss


class BidirectionalContrastLoss(Configured):
    """`bidirectional_contrast` with its settings stored.

    Args:
        num_classes: C.
        pairwise: image against image, or batch against batch.
        temperature: > 0, a number or a tensor (); an `nn.Parameter` is learnt.
        absent: "mask" or "floor".
        balance: "pixel", every pixel alike, or "class", every class alike: a pixel weighs 1 over
            the pixels of its class, at least 20, so that no single one is more than a twentieth of
            a class.
        ignore_index: label of pixels without a class, outside 0..C-1.
        validate: check label values on every call with `check_labels`; waits for a GPU.
        backend: "auto", or an implementation by name.

    Returns:
        From `forward(source_features, source_labels, target_features, target_labels, **given)`:
        `BidirectionalContrast`; `given` are prototypes and presence as in the function.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M12), (M18) of docs/maths.md.

    Example:
        >>> import torch
        >>> loss = BidirectionalContrastLoss(2, pairwise=False, temperature=1.0)
        >>> rows, labels = torch.eye(2), torch.tensor([0, 1])
        >>> f"{loss(rows, labels, rows, labels).loss.item():.4f}"
        '0.6265'
    """

    Settings = BidirectionalSettings

    @called("BidirectionalContrastLoss")
    def __init__(
        self,
        num_classes: int,
        *,
        pairwise: bool = True,
        temperature: float | Tensor = 0.1,
        absent: Absent = "mask",
        balance: Balance = "pixel",
        ignore_index: int = 255,
        validate: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_flag("validate", validate)
        self.num_classes, self.pairwise = num_classes, pairwise
        self.temperature, self.absent, self.balance = temperature, absent, balance
        self.ignore_index, self.validate, self.backend = ignore_index, validate, backend
        self.check()

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"{self.num_classes}, {super().extra_repr()}"

    def forward(
        self,
        source_features: Tensor,
        source_labels: Tensor,
        target_features: Tensor,
        target_labels: Tensor,
        *,
        source_prototypes: Tensor | None = None,
        target_prototypes: Tensor | None = None,
        source_present: Tensor | None = None,
        target_present: Tensor | None = None,
    ) -> BidirectionalContrast:
        """Loss, target_to_source and source_to_target, each () in nats."""
        losses = bidirectional_contrast(
            source_features,
            source_labels,
            target_features,
            target_labels,
            source_prototypes=source_prototypes,
            target_prototypes=target_prototypes,
            source_present=source_present,
            target_present=target_present,
            **self.given(),
        )
        if self.validate:
            for labels in (source_labels, target_labels):
                check_labels(labels, self.num_classes, ignore_index=self.ignore_index)
        return losses


class PairContrastLoss(Configured):
    """`pair_contrast` with its settings stored.

    Args:
        similarity: "cosine", "dot" or "euclidean".
        temperature: > 0, a number or a tensor (); an `nn.Parameter` is learnt.
        denominator: "negatives" or "all".
        exclude_self: key i is anchor i itself, and no positive of its own. It is to be asked for:
            else anchors that are the keys, too, are each a positive of their own.
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


class UpsampledCrossEntropyLoss(Configured):
    """`upsampled_cross_entropy` with its settings stored.

    Args:
        class_weight: (C,) weights, kept as a buffer that moves with the module.
        ignore_index: label of pixels without a class, outside 0..C-1.
        align_corners: as the network was trained.
        label_smoothing: in [0, 1].
        reduction: "mean", "sum" or "none".
        validate: check label values on every call with `check_labels`; waits for a GPU.
        backend: "auto", or an implementation by name.

    Returns:
        From `forward(logits, labels)`: the loss.

    Source:
        (M16) of docs/maths.md.

    Example:
        >>> import torch
        >>> loss = UpsampledCrossEntropyLoss()
        >>> f"{loss(torch.zeros(1, 4, 2, 2), torch.ones(1, 8, 8).long()).item():.4f}"
        '1.3863'
    """

    Settings = UpsampledSettings
    class_weight: Tensor | None

    @called("UpsampledCrossEntropyLoss")
    def __init__(
        self,
        class_weight: Tensor | None = None,
        *,
        ignore_index: int = 255,
        align_corners: bool = False,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
        validate: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_flag("validate", validate)
        check_class_weight(class_weight, to="logits")
        self.register_buffer("class_weight", class_weight)
        self.ignore_index, self.align_corners = ignore_index, align_corners
        self.label_smoothing, self.reduction = label_smoothing, reduction
        self.validate, self.backend = validate, backend
        self.check()

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss in nats: () for "mean" and "sum", else the labels' shape."""
        weight = self.class_weight
        loss = upsampled_cross_entropy(logits, labels, class_weight=weight, **self.given())
        if self.validate:
            check_labels(labels, logits.shape[1], ignore_index=self.ignore_index)
        return loss
