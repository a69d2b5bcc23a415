"""BiCL (Lee et al., ECCV 2022) with the weights of the authors' release, untuned for the toy.

Its terms are in `reference.training.adapt_step`; the toy's own settings, which were tuned, are
`reference.training.config.BICL`.
"""

from __future__ import annotations

from typing import Final

from reference.training.adapt_step import Ingredients
from reference.training.config import Adaptation, Contrast

PUBLISHED: Final = Adaptation(
    contrast=Contrast(
        target_to_source=0.1,
        source_to_target=0.1,
        measure="confidence",
        threshold=0.8,
        momentum=0.99,
        bias_momentum=0.99,
        prototypes="batch",
        pairwise=True,
        absent="floor",
        normalize=False,
    ),
    entropy_weight=0.12,
    static_weight=0.3,
    static_from_round=0,
    static_share=0.1,
)
"""Paper: dynamic labels, calibration, fused labels. Released: weights 0.1, 0.3 and 0.4 * 0.3,
prototypes of the paired image with gradient, absent classes at a cosine of -1, share 0.1; its
entropy is taken as the true one, its halving of the learning rate every round is left out."""


class BiCL(Ingredients):
    """CE(P_s, y_s) + 0.3 CE(P_t, y_F) + 0.4 H(P_s) + 0.12 H(P_t) + 0.1 L(t -> s) + 0.1 L(s -> t).

    Args:
        feature_dim: channels D of the features.

    Source:
        Lee et al., ECCV 2022, arXiv 2207.10892; (M1) to (M16) of docs/maths.md.
    """

    source_entropy = 0.4

    def __init__(self, feature_dim: int) -> None:
        super().__init__(PUBLISHED, feature_dim)
