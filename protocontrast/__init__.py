"""Contrastive learning between pixels and class prototypes.

Functions in `protocontrast.functional`, modules here; both are re-exported at this level.
"""

from protocontrast.bank import ClassThresholds, DomainBias, PrototypeBank
from protocontrast.bicl import BiCL, BiCLOutput
from protocontrast.functional import (
    BidirectionalContrast,
    ClassMix,
    ClassPrototypes,
    SampledPixels,
    TransferredLabels,
    bidirectional_contrast,
    check_labels,
    class_mix,
    class_prototypes,
    confident_share,
    entropy,
    frequency_weights,
    fuse_labels,
    labels_to_grid,
    mrkld,
    pixel_prototype_contrast,
    prototype_logits,
    prototype_pull,
    rectify,
    sample_pixels,
    select_labels,
    similarity_kl,
    sinkhorn,
    spread,
    symmetric_cross_entropy,
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
    "ClassMix",
    "ClassPrototypes",
    "ClassThresholds",
    "DomainBias",
    "PixelPrototypeContrastLoss",
    "PrototypeBank",
    "SampledPixels",
    "TransferredLabels",
    "UpsampledCrossEntropyLoss",
    "bidirectional_contrast",
    "check_labels",
    "class_mix",
    "class_prototypes",
    "confident_share",
    "entropy",
    "frequency_weights",
    "fuse_labels",
    "labels_to_grid",
    "mrkld",
    "pixel_prototype_contrast",
    "prototype_logits",
    "prototype_pull",
    "rectify",
    "sample_pixels",
    "select_labels",
    "similarity_kl",
    "sinkhorn",
    "spread",
    "symmetric_cross_entropy",
    "transfer_labels",
    "upsampled_cross_entropy",
]
