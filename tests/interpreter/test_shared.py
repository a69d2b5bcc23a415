"""What the main suite asks of every backend, asked of the kernels."""

from tests import (
    test_bidirectional,
    test_class_balance,
    test_class_prototypes,
    test_contrast_edges,
    test_distribution_contrast,
    test_logits,
    test_not_finite,
    test_pair_contrast,
    test_target_pass,
    test_transfer,
    test_upsampled_cross_entropy,
    test_upsampled_edges,
    test_volume_backends,
)
from tests.interpreter.on_triton import on_triton

MODULES = (
    test_bidirectional,
    test_class_balance,
    test_class_prototypes,
    test_contrast_edges,
    test_distribution_contrast,
    test_logits,
    test_not_finite,
    test_pair_contrast,
    test_target_pass,
    test_transfer,
    test_upsampled_cross_entropy,
    test_upsampled_edges,
    test_volume_backends,
)

# Thousands of pixels, which take minutes here; test_transfer.py beside this file has a small one.
TOO_LARGE = {"test_ties_go_to_the_lowest_class"}
# Held to `naive` beside this file, on the same calls; the main suite holds that to the composition.
ASKED_ELSEWHERE = {"test_the_composition"}

for module in MODULES:
    for name, test in on_triton(module).items():
        if name not in TOO_LARGE | ASKED_ELSEWHERE:
            globals()[f"{name}_of_{module.__name__.split('.')[-1].removeprefix('test_')}"] = test
