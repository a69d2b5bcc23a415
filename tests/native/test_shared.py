"""What the main suite asks of every backend, asked of C; any call on every instruction set."""

from tests.native.variants import EVERY
from tests.shared import ON_EVERY_BACKEND, on

CPU_ALONE = (
    *("absent_logits", "bidirectional_autograd", "label_smoothing", "lengths"),
    "target_pass_autograd",
)

globals().update(
    (name, EVERY(test) if name.startswith(("test_any", "test_ties")) else test)
    for name, test in on("native", *ON_EVERY_BACKEND, *CPU_ALONE).items()
)
