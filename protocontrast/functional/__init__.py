"""The public functions: metadata checked, shapes brought to one, the operator called."""

from protocontrast.checks import check_labels
from protocontrast.functional.backends import backends, default_backend
from protocontrast.functional.bidirectional import BidirectionalContrast, bidirectional_contrast
from protocontrast.functional.class_prototypes import (
    ClassPrototypes,
    ClassStatistics,
    class_prototypes,
    class_statistics,
)
from protocontrast.functional.contrast import pixel_prototype_contrast
from protocontrast.functional.distribution_contrast import distribution_contrast
from protocontrast.functional.frequencies import frequency_weights
from protocontrast.functional.labels import fuse_labels, labels_to_grid
from protocontrast.functional.logits import prototype_logits
from protocontrast.functional.mixing import ClassMix, class_mix
from protocontrast.functional.pair_contrast import pair_contrast
from protocontrast.functional.prediction_losses import (
    entropy,
    mrkld,
    similarity_kl,
    symmetric_cross_entropy,
)
from protocontrast.functional.prototype_losses import prototype_pull, spread
from protocontrast.functional.sampling import SampledPixels, sample_pixels
from protocontrast.functional.selection import confident_share, rectify, select_labels
from protocontrast.functional.sinkhorn import sinkhorn
from protocontrast.functional.subclasses import assign_subclasses, subclass_max
from protocontrast.functional.transfer import TransferredLabels, transfer_labels
from protocontrast.functional.upsampled_cross_entropy import upsampled_cross_entropy

__all__ = [
    "BidirectionalContrast",
    "ClassMix",
    "ClassPrototypes",
    "ClassStatistics",
    "SampledPixels",
    "TransferredLabels",
    "assign_subclasses",
    "backends",
    "bidirectional_contrast",
    "check_labels",
    "class_mix",
    "class_prototypes",
    "class_statistics",
    "confident_share",
    "default_backend",
    "distribution_contrast",
    "entropy",
    "frequency_weights",
    "fuse_labels",
    "labels_to_grid",
    "mrkld",
    "pair_contrast",
    "pixel_prototype_contrast",
    "prototype_logits",
    "prototype_pull",
    "rectify",
    "sample_pixels",
    "select_labels",
    "similarity_kl",
    "sinkhorn",
    "spread",
    "subclass_max",
    "symmetric_cross_entropy",
    "transfer_labels",
    "upsampled_cross_entropy",
]
