"""What one step returns: `BiCLOutput`."""

from typing import NamedTuple

from torch import Tensor


class BiCLOutput(NamedTuple):
    """One step of `BiCL`.

    Attributes:
        loss: weights[0] * target_to_source + weights[1] * source_to_target, ().
        target_to_source: target pixels against source prototypes, ().
        source_to_target: source pixels against target prototypes, ().
        target_labels: the hybrid pseudo labels on the grid, (B, h, w) or (B, z, h, w) int64.
        coverage: share of target pixels with a label, () in [0, 1].
        class_share: (C,) share of each class among the labelled target pixels over its share among
            the labelled source pixels; 0 where source has none.
    """

    loss: Tensor
    target_to_source: Tensor
    source_to_target: Tensor
    target_labels: Tensor
    coverage: Tensor
    class_share: Tensor
