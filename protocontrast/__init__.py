"""Contrastive learning between pixels and class prototypes.

Functions in `protocontrast.functional`, modules here; both are re-exported at this level.
"""

from protocontrast.bank import DomainBias, PrototypeBank
from protocontrast.bicl import BiCL, BiCLOutput
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
    upsampled_cross_entropy,
)
from protocontrast.losses import (
    BidirectionalContrastLoss,
    PixelPrototypeContrastLoss,
    UpsampledCrossEntropyLoss,
)

__version__ = "0.1.0"

__all__ = [
    "BiCL",
    "BiCLOutput",
    "BidirectionalContrast",
    "BidirectionalContrastLoss",
    "ClassPrototypes",
    "DomainBias",
    "PixelPrototypeContrastLoss",
    "PrototypeBank",
    "TransferredLabels",
    "UpsampledCrossEntropyLoss",
    "bidirectional_contrast",
    "check_labels",
    "class_prototypes",
    "fuse_labels",
    "labels_to_grid",
    "pixel_prototype_contrast",
    "prototype_logits",
    "transfer_labels",
    "upsampled_cross_entropy",
]
