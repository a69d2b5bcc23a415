"""The public functions: metadata checked, shapes brought to one, the operator called."""

from protocontrast.checks import check_labels
from protocontrast.functional.bidirectional import BidirectionalContrast, bidirectional_contrast
from protocontrast.functional.class_prototypes import ClassPrototypes, class_prototypes
from protocontrast.functional.contrast import pixel_prototype_contrast
from protocontrast.functional.labels import fuse_labels, labels_to_grid
from protocontrast.functional.logits import prototype_logits
from protocontrast.functional.transfer import TransferredLabels, transfer_labels
from protocontrast.functional.upsampled_cross_entropy import upsampled_cross_entropy

__all__ = [
    "BidirectionalContrast",
    "ClassPrototypes",
    "TransferredLabels",
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
