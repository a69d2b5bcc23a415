"""The loss terms that stand beside BiCL's: cross-entropy at stride 4, and a guard.

Contrast and entropy are protocontrast's and are not repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.networks.toy import STRIDE


class NonFiniteLossError(RuntimeError):
    """A loss term became NaN or infinite; the message names the first such term."""


def cell_labels(labels: Tensor | None) -> Tensor:
    """Take the label at the middle of every 4x4 cell of the network's grid.

    Cross-entropy on these costs a twentieth of cross-entropy on upsampled logits; the price is
    that objects thinner than a cell are seen on some rows and columns only.

    Args:
        labels: train ids or 255.

    Shape:
        labels (..., H, W), integer, H and W multiples of 4. Result: (..., H / 4, W / 4), int64.

    Raises:
        ValueError: labels are None, because the data were read without them.

    Example:
        >>> import torch
        >>> cell_labels(torch.arange(16).view(4, 4)).tolist()
        [[10]]
    """
    if labels is None:
        raise ValueError(
            "cell_labels: expected labels, got None. Hint: make the reader with labels=True."
        )
    return labels[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].long()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over the cells that have a label.

    Args:
        logits: class scores.
        labels: train ids; 255 is left out.

    Shape:
        logits (B, C, h, w), float; labels (B, h, w), int64. Result: (), in nats, >= 0.

    Returns:
        Tensor: exactly 0 with zero gradient where no cell has a label.
    """
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def source_cross_entropy(
    logits: Tensor,
    labels: Tensor | None,
    *,
    full_resolution: bool,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy on labels at image size, on every label or on one per cell of the grid.

    Args:
        logits: class scores on the grid.
        labels: train ids; 255 is left out.
        full_resolution: blend the logits up to the labels' size first.
        class_weight: of every pixel by its label, and of the mean; None weighs all alike.

    Shape:
        logits (B, C, h, w), float; labels (B, H, W), integer; class_weight (C,). Result: (), in
        nats, >= 0.

    Returns:
        Tensor: exactly 0 with zero gradient where nothing has a label.
    """
    if labels is not None and (full_resolution or class_weight is not None):
        chosen = labels.long() if full_resolution else cell_labels(labels)
        return pc.upsampled_cross_entropy(
            logits, chosen, class_weight=class_weight, ignore_index=IGNORE
        )
    return cross_entropy(logits, cell_labels(labels))


def require_finite(losses: Mapping[str, Tensor], *, run: str, step: int) -> dict[str, float]:
    """Read the loss terms as numbers, refusing NaN and infinity.

    Args:
        losses: term name -> scalar tensor.
        run: name of the run, for the message.
        step: the step just computed, from 0.

    Returns:
        dict: term name -> value.

    Raises:
        NonFiniteLossError: a term is NaN or infinite. Raised before the optimiser moves, so
            nothing that was saved or trained is touched.
    """
    values = {name: float(term.detach()) for name, term in losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"{run}: expected a finite loss, got {name} = {value} at step {step}. "
                "Hint: lower the learning rate or the weight of this term."
            )
    return values
