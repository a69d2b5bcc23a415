"""The properties that the interpreter's tests hold the kernels to, held on the device."""

from types import ModuleType

from tests import (
    test_bidirectional,
    test_class_prototypes,
    test_contrast_edges,
    test_distribution_contrast,
    test_logits,
    test_pair_contrast,
    test_pair_contrast_methods,
    test_transfer,
    test_upsampled_cross_entropy,
    test_upsampled_edges,
    test_volume_backends,
)
from tests.gpu.on_device import carry
from tests.interpreter import test_class_prototypes as kernel_class_prototypes
from tests.interpreter import test_contrast as kernel_contrast
from tests.interpreter import test_distribution_contrast as kernel_distribution
from tests.interpreter import test_logits as kernel_logits
from tests.interpreter import test_pair_contrast as kernel_pair_contrast
from tests.interpreter import test_transfer as kernel_transfer
from tests.interpreter import test_upsampled_cross_entropy as kernel_upsampled
from tests.interpreter.on_triton import on_triton

FOR_EVERY_BACKEND = (
    test_bidirectional,
    test_class_prototypes,
    test_contrast_edges,
    test_distribution_contrast,
    test_logits,
    test_pair_contrast,
    test_pair_contrast_methods,
    test_transfer,
    test_upsampled_cross_entropy,
    test_upsampled_edges,
    test_volume_backends,
)
OF_KERNELS = (
    kernel_class_prototypes,
    kernel_contrast,
    kernel_distribution,
    kernel_logits,
    kernel_pair_contrast,
    kernel_transfer,
    kernel_upsampled,
)
# A kernel called with CPU tensors, without the library in between.
ON_THE_HOST = {"test_a_label_that_is_no_class_turns_its_own_loss_into_nan"}


def _stem(module: ModuleType) -> str:
    return module.__name__.split(".")[-1].removeprefix("test_")


for module in (*FOR_EVERY_BACKEND, *OF_KERNELS):
    # The kernel's file calls nothing itself, but what stands in the main suite's.
    if module is not kernel_transfer:
        carry(module)
for module in FOR_EVERY_BACKEND:
    for name, test in on_triton(module).items():
        globals()[f"{name}_of_{_stem(module)}"] = test
for module in OF_KERNELS:
    for name, test in vars(module).items():
        if name.startswith("test_") and name not in ON_THE_HOST:
            globals()[f"{name}_of_the_{_stem(module)}_kernel"] = test
del test
