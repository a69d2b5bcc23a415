"""What the main suite asks of every backend, asked of the kernels."""

from tests.shared import ON_EVERY_BACKEND, on

# Thousands of pixels, which take minutes here; test_transfer.py beside this file has a small one.
TOO_LARGE = ("test_ties_go_to_the_lowest_class",)
# Any call is held to `naive` here; the main suite holds that to the composition.
ASKED_ELSEWHERE = ("test_the_composition",)

for name, test in on("triton", *ON_EVERY_BACKEND).items():
    if not name.startswith((*TOO_LARGE, *ASKED_ELSEWHERE)):
        globals()[name] = test
