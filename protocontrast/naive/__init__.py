"""The specification: one plain function per equation of the documents; autograd derives them.

Pixels are rows here: features (N, D), labels (N,) or soft targets (N, C), prototypes (C, D);
anchors (A, D), keys (K, D) and negatives (M, D) have a label each. Nothing is fused, tiled or
saved; every other implementation is tested against these functions.
"""

from protocontrast.naive.class_prototypes import (
    calibrate,
    class_squares,
    class_sums,
    moving_average,
)
from protocontrast.naive.contrast import equal_weights, pixel_prototype_contrast
from protocontrast.naive.distribution_contrast import distribution_contrast, pulls
from protocontrast.naive.grid import label_counts
from protocontrast.naive.pair_contrast import pair_contrast, pairs
from protocontrast.naive.similarity import present_rows, prototype_logits, similarities, unit_rows
from protocontrast.naive.target_pass import target_pass
from protocontrast.naive.transfer import first_of_equals, fuse_labels, transfer_labels
from protocontrast.naive.upsampled_cross_entropy import (
    bilinear,
    bilinear_reads,
    upsampled_cross_entropy,
)

__all__ = [
    "bilinear",
    "bilinear_reads",
    "calibrate",
    "class_squares",
    "class_sums",
    "distribution_contrast",
    "equal_weights",
    "first_of_equals",
    "fuse_labels",
    "label_counts",
    "moving_average",
    "pair_contrast",
    "pairs",
    "pixel_prototype_contrast",
    "present_rows",
    "prototype_logits",
    "pulls",
    "similarities",
    "target_pass",
    "transfer_labels",
    "unit_rows",
    "upsampled_cross_entropy",
]
