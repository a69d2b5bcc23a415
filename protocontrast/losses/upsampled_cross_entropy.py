"""Cross-entropy at the labels' resolution as a module: `UpsampledCrossEntropyLoss`."""

from torch import Tensor

from protocontrast.checks import (
    called,
    check_choice,
    check_flag,
    check_floating,
    check_ignore_index,
    check_labels,
    check_no_grad,
    check_share,
    sentence,
)
from protocontrast.functional.contrast import BACKENDS, REDUCTIONS, Backend, Reduction
from protocontrast.functional.upsampled_cross_entropy import upsampled_cross_entropy
from protocontrast.module import Module


class UpsampledCrossEntropyLoss(Module):
    """`upsampled_cross_entropy` with its settings stored.

    Args:
        class_weight: (C,) weights, kept as a buffer that moves with the module.
        ignore_index: label of pixels without a class, outside 0..C-1.
        align_corners: as the network was trained.
        label_smoothing: in [0, 1].
        reduction: "mean", "sum" or "none".
        validate: check label values on every call with `check_labels`; waits for a GPU.
        backend: "auto", or an implementation by name.

    Shape:
        As in `upsampled_cross_entropy`.

    Returns:
        From `forward(logits, labels)`: the loss.

    Raises:
        ValueError: an unknown setting.

    Source:
        (M16) of docs/maths.md.

    Example:
        >>> import torch
        >>> loss = UpsampledCrossEntropyLoss()
        >>> f"{loss(torch.zeros(1, 4, 2, 2), torch.ones(1, 8, 8).long()).item():.4f}"
        '1.3863'
    """

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
        check_ignore_index(ignore_index)
        check_flag("align_corners", align_corners)
        check_flag("validate", validate)
        check_share("label_smoothing", label_smoothing)
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("backend", backend, BACKENDS)
        if class_weight is not None:
            check_floating("class_weight", class_weight)
            check_no_grad("class_weight", class_weight, to="logits")
            if class_weight.dim() != 1:
                got = tuple(class_weight.shape)
                raise ValueError(sentence("class_weight", "of shape (C,)", got))
        self.register_buffer("class_weight", class_weight)
        self.ignore_index = ignore_index
        self.align_corners = align_corners
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.validate = validate
        self.backend = backend

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return (
            f"ignore_index={self.ignore_index}, align_corners={self.align_corners}, "
            f"label_smoothing={self.label_smoothing}, "
            f"reduction={self.reduction!r}, validate={self.validate}, backend={self.backend!r}"
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss in nats: () for "mean" and "sum", else the labels' shape."""
        loss = upsampled_cross_entropy(
            logits,
            labels,
            class_weight=self.class_weight,
            ignore_index=self.ignore_index,
            align_corners=self.align_corners,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            backend=self.backend,
        )
        if self.validate:
            check_labels(labels, logits.shape[1], ignore_index=self.ignore_index)
        return loss
