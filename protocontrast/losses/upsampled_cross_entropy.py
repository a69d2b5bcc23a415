"""Cross-entropy at the labels' resolution as a module: `UpsampledCrossEntropyLoss`."""

from torch import Tensor

from protocontrast.checks import called, check_flag, check_labels
from protocontrast.functional.settings import (
    Backend,
    Reduction,
    UpsampledSettings,
    check_class_weight,
)
from protocontrast.functional.upsampled_cross_entropy import upsampled_cross_entropy
from protocontrast.module import Configured


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
