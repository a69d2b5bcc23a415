"""One step of adaptation: every term of the loss, one line per equation.

The contrast is `protocontrast.BiCL`; its equations stand in docs/maths.md.
"""

from __future__ import annotations

import math
from typing import Final

from torch import Tensor

import protocontrast as pc
from reference.data.classes import NUM_CLASSES
from reference.data.transforms import Batch, matching
from reference.networks.toy import SegmentationNetwork
from reference.training.config import Adaptation, Contrast
from reference.training.losses import cell_labels, cross_entropy, source_cross_entropy
from reference.training.method import Method, Step, Stepped
from reference.training.pseudo_labels import static_pseudo_labels

_NEVER: Final = math.inf
"""A threshold that no pixel reaches: no dynamic labels."""


def build_bicl(settings: Contrast, feature_dim: int) -> pc.BiCL:
    """Translate settings into `protocontrast.BiCL`.

    Args:
        settings: of the contrast.
        feature_dim: channels D of the features.
    """
    return pc.BiCL(
        num_classes=NUM_CLASSES,
        dim=feature_dim,
        temperature=settings.temperature,
        threshold=settings.threshold if settings.dynamic_labels else _NEVER,
        measure=settings.measure,
        momentum=settings.momentum,
        bias_momentum=settings.bias_momentum,
        bias_warmup=settings.bias_warmup,
        normalize=settings.normalize,
        prototypes=settings.prototypes,
        pairwise=settings.pairwise,
        absent=settings.absent,
        calibrate=settings.calibrate,
        weights=(settings.target_to_source, settings.source_to_target),
    )


def adapt_step(
    network: SegmentationNetwork,
    bicl: pc.BiCL | None,
    source: Batch,
    target: Batch | None,
    static_labels: Tensor | None,
    settings: Adaptation,
    round_index: int,
    source_entropy: float = 0.0,
) -> Stepped:
    """Compute the loss terms of one step.

    L = CE(P_s, y_s) + w_F CE(P_t, y_F) + w_E H(P_t) + l_1 L(t -> rho_S) + l_2 L(s -> rho_T)
        + w_S H(P_s)

    Args:
        network: the network being trained.
        bicl: prototypes, bias and both contrasts; updated by this call. None without contrast.
        source: images and labels.
        target: images; None for the control.
        static_labels: y_F on the grid, flipped as the images are, 255 where none; None where
            this round has none. They win over dynamic labels inside BiCL.
        settings: weights of the terms.
        round_index: from 0.
        source_entropy: w_S, from the first round on.

    Shape:
        static_labels (B, h, w), int64.
    """
    seen = network(source.images)
    source_labels = cell_labels(source.labels)
    losses = {
        "source_cross_entropy": source_cross_entropy(
            seen.logits, source.labels, full_resolution=settings.full_resolution
        )
    }
    if target is None:
        return Stepped(losses)
    new = network(target.images)
    if static_labels is not None and settings.static_weight:
        losses["static_cross_entropy"] = settings.static_weight * cross_entropy(
            new.logits, static_labels
        )
    if settings.entropy_weight and round_index >= settings.entropy_from_round:
        losses["entropy"] = settings.entropy_weight * pc.entropy(new.logits)
    if source_entropy:
        losses["source_entropy"] = source_entropy * pc.entropy(seen.logits)
    if bicl is None or settings.contrast is None:
        return Stepped(losses, new, labels=static_labels, static_labels=static_labels)
    pulled = bicl(seen.features, source_labels, new.features, static_labels)
    losses["target_to_source"] = settings.contrast.target_to_source * pulled.target_to_source
    losses["source_to_target"] = settings.contrast.source_to_target * pulled.source_to_target
    return Stepped(losses, new, pulled, pulled.target_labels, static_labels)


class Ingredients(Method):
    """BiCL, or what is left of it with ingredients switched off, as a method of the loop.

    Args:
        settings: which terms are active, with what weight, from which round.
        feature_dim: channels D of the features.
    """

    source_entropy = 0.0
    """Weight of the entropy of source predictions; released 0.4, own 0."""

    def __init__(self, settings: Adaptation, feature_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.uses_target = settings.uses_target
        self.bicl = None
        if settings.contrast is not None:
            self.bicl = build_bicl(settings.contrast, feature_dim)
        self.static_labels: Tensor | None = None

    def forward(self, step: Step) -> Stepped:
        """Remake static labels where a round begins, then compute the terms."""
        if step.starts_round and self.settings.remakes_static_labels(step.round_index):
            self.static_labels = static_pseudo_labels(
                step.network, step.target_images, share=self.settings.static_share
            )
        fixed = None
        if self.static_labels is not None and step.target is not None:
            fixed = matching(self.static_labels, step.target).long()
        return adapt_step(
            step.network, self.bicl, step.source, step.target, fixed, self.settings,
            step.round_index, self.source_entropy,
        )  # fmt: skip
