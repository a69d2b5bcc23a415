"""Contrastive learning between pixels and class prototypes.

Functions in `protocontrast.functional`, modules here; both are re-exported at this level.
"""

from protocontrast.functional import (
    BidirectionalContrast,
    ClassPrototypes,
    TransferredLabels,
    bidirectional_contrast,
    check_labels,
    class_prototypes,
    fuse_labels,
    labels_to_grid,
    pixel_prototype_contrast,
    prototype_logits,
    transfer_labels,
)
