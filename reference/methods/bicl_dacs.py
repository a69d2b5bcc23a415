"""BiCL's contrast on DACS: what it adds where a teacher and mixed images do the rest."""

from __future__ import annotations

from torch import Tensor

import protocontrast as pc
from reference.methods.bicl import PUBLISHED
from reference.methods.dacs import DACS, Seen
from reference.methods.settings import CONFIDENT
from reference.training.adapt_step import build_bicl
from reference.training.config import Contrast
from reference.training.method import Step


class BiCLOnDACS(DACS):
    """DACS + 0.1 L(t -> rho_S) + 0.1 L(s -> rho_T).

    A target pixel has the teacher's label where that is sure, and else that of the nearest
    calibrated prototype, if it is near enough. An own combination, with BiCL's published weights.

    Args:
        feature_dim: channels D of the features.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.settings = PUBLISHED.contrast or Contrast()
        self.bicl = build_bicl(self.settings, feature_dim)

    def more(self, step: Step, seen: Seen) -> dict[str, Tensor]:
        """Contrast source and target pixels with prototypes of the other domain."""
        target = step.network(step.target_batch.images)
        sure = pc.select_labels(seen.taught.logits.softmax(dim=1), CONFIDENT).labels
        pulled = self.bicl(seen.source.features, step.source_labels, target.features, sure)
        return {
            "target_to_source": self.settings.target_to_source * pulled.target_to_source,
            "source_to_target": self.settings.source_to_target * pulled.source_to_target,
        }
