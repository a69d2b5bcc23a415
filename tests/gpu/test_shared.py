"""The properties that the interpreter's tests hold the kernels to, held on the device."""

from importlib import import_module

from tests import operator_calls
from tests.gpu.on_device import carry
from tests.interpreter import test_half_operands, test_tiles, test_transfer
from tests.interpreter import test_upsampled_cross_entropy as test_upsampled_strips
from tests.shared import ON_EVERY_BACKEND, on

# These call what lies below the public functions, with tensors of the host.
BELOW = ("class_balance", "not_finite", "target_pass")
# Its calls are made elsewhere, which is carried, too.
CALLED_ELSEWHERE = ("operator_properties",)

STEMS = [stem for stem in ON_EVERY_BACKEND if stem not in BELOW]
for module in (
    operator_calls,
    test_half_operands,
    *(import_module(f"tests.test_{stem}") for stem in STEMS if stem not in CALLED_ELSEWHERE),
):
    carry(module)
globals().update(on("triton", *STEMS))
for module in (test_half_operands, test_tiles, test_transfer, test_upsampled_strips):
    stem = module.__name__.rpartition("test_")[2]
    for name, test in vars(module).items():
        if name.startswith("test_"):
            globals()[f"{name}_of_{stem}_of_kernels"] = test
del name, test
