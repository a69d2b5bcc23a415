"""What the main suite asks of every backend, asked of the kernels."""

from tests.shared import ON_EVERY_BACKEND, on

# Thousands of pixels, which take minutes here: a small one is in test_transfer.py beside this file.
TOO_LARGE = ("test_ties_go_to_the_lowest_class",)
# Any call is held to `naive` here; the main suite holds that to the composition.
ASKED_ELSEWHERE = ("test_the_composition",)

globals().update(
    (name, test)
    for name, test in on("triton", *ON_EVERY_BACKEND).items()
    if not name.startswith((*TOO_LARGE, *ASKED_ELSEWHERE))
)
