"""What the main suite asks of every backend, asked of the kernels."""

from tests.shared import ON_EVERY_BACKEND, on

# Thousands of pixels, or a call per element of the inputs, which take minutes here: a small one is
# in test_transfer.py beside this file, and gradients are held to those of `naive`.
TOO_LARGE = ("test_ties_go_to_the_lowest_class", "test_gradcheck")
# Any call is held to `naive` here; the main suite holds that to the composition.
ASKED_ELSEWHERE = ("test_the_composition",)

globals().update(
    (name, test)
    for name, test in on("triton", *ON_EVERY_BACKEND).items()
    if not name.startswith((*TOO_LARGE, *ASKED_ELSEWHERE))
)
