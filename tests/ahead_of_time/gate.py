"""What a compiled kernel must satisfy, in sentences about what it does not."""

import math
from typing import NamedTuple

from tests.ahead_of_time.cases import COSINE_AT_MOST, OF_PROTOTYPES, WITHOUT_A_ROW, Case, row
from tests.ahead_of_time.resources import SHARED_LIMIT, Resources

TOLERANCE = 0.1
"""Releases of triton move registers about; the pinned one is to move them less than this."""
COMMAND = "python -m tests.ahead_of_time.budget"

REASONS = {
    "classes": "with more than 128 classes the scores of a tile fill the registers at any size",
    "distances": "they take the tiles of products, beside which differences have no registers",
    "distributions": "with more than 64 classes both products fill the registers at any size",
    "double": "float64 serves gradient checks, which need no speed",
    "kept": "a tile, the sums of all channels or the scores of many classes stay in registers, and "
    "to read them again costs more than the few that are spilled",
    "named": "a few bytes of what is scored or summed find no register",
    "unaligned": "without aligned runs of pixels or channels every element has its own address",
}
"""Why a kernel may spill at all; how much is written in the budget."""

NAMED = {
    "sm80-class_sums_normalize-bf16-medium-D2048-C19-nchw-hard-cosine",
    "sm100-class_sums-fp32-highest-D720-C150-channels_last-hard-cosine",
    "sm100-class_sums_normalize-fp32-highest-D720-C19-nchw-hard-cosine",
    "sm100-class_sums_normalize-fp16-highest-D256-C150-channels_last-hard-cosine",
    "sm80-target_pass-bf16-highest-D64-C19-channels_last-hard-cosine",
    "sm80-target_pass-bf16-medium-D256-C19-nchw-hard-cosine",
    "sm80-target_pass-fp16-highest-D256-C19-nchw-hard-cosine",
    "sm80-target_pass-fp32-highest-D256-C124-channels_last-hard-cosine",
    "sm100-target_pass-bf16-highest-D2048-C124-channels_last-hard-cosine",
    "sm100-target_pass-fp16-highest-D720-C19-channels_last-hard-cosine",
}
"""Cases with a reason of their own, beside others of their row that spill nothing."""


class Budget(NamedTuple):
    """What a case took when the budget was written: registers and bytes of stack per thread."""

    registers: int
    stack: int


def aligned(case: Case) -> bool:
    """Whether the features start every run of pixels or channels at a multiple of 16."""
    if case.layout == "channels_last":
        return case.channels % 16 == 0
    return case.layout == "nchw"


def reason_to_spill(case: Case) -> str | None:
    """Why this case may use the stack; None where it may not."""
    if case.dtype == "fp64":
        return REASONS["double"]
    looked_up = case.kernel.startswith("class_sums_backward")
    backward = "backward" in case.kernel and not looked_up
    many = backward or case.kernel.startswith("target_pass") or case.soft
    if case.classes > 128 and many:
        return REASONS["classes"]
    if case.classes > 64 and case.kernel == "distribution_contrast_backward_both":
        return REASONS["distributions"]
    if not aligned(case):
        return REASONS["unaligned"]
    if case.similarity == "euclidean" and case.kernel not in COSINE_AT_MOST:
        return REASONS["distances"]
    found = row(case)
    keeps = found is not None and found.config.programs > 0
    if keeps and ("backward" in case.kernel or case.classes > 128):
        return REASONS["kept"]
    return REASONS["named"] if str(case) in NAMED else None


def multiplies_matrices(case: Case) -> bool | None:
    """Whether the kernel must use tensor cores (True), must not (False), or may (None)."""
    if case.kernel in WITHOUT_A_ROW or case.kernel.startswith("class_sums_backward"):
        return False
    if case.similarity == "euclidean" and case.kernel not in COSINE_AT_MOST:
        return False
    if case.dtype == "fp64" or case.target == "gfx942":
        # AMD's matrix units also multiply float32 and float64 exactly.
        return None if case.dtype in ("fp64", "fp32") else True
    exactly = case.dtype == "fp32" and case.precision == "highest"
    found = row(case)
    return not exactly or (found is not None and found.config.exact != "ieee")


def objections(case: Case, found: Resources, budget: Budget | None) -> list[str]:
    """A sentence for each thing that is wrong; none if the kernel is as it should be."""
    wrong = []

    def expect(right: bool, expected: str, got: str, hint: str) -> None:
        if not right:
            wrong.append(f"{case}: expected {expected}, got {got}. Hint: {hint}")

    rewrite = f"if this is meant, {COMMAND} rewrites the budget."
    smaller = "choose a smaller tile in protocontrast/kernels/configs.py."
    if budget is None:
        expect(False, "a line in the budget", "none", f"{COMMAND} writes it.")
    else:
        # A few registers are no news where there are few.
        most = max(math.floor(budget.registers * (1 + TOLERANCE)), budget.registers + 4)
        expect(
            found.registers <= most,
            f"at most {most} registers a thread ({budget.registers} in the budget)",
            f"{found.registers}",
            rewrite,
        )
    allowed = 0
    if budget is not None and reason_to_spill(case) is not None:
        allowed = math.floor(budget.stack * (1 + TOLERANCE)) + 16 * (budget.stack > 0)
    what = f"at most {allowed} bytes of stack" if allowed else "no stack"
    spilled = f"{found.stack} bytes of spilled registers a thread"
    expect(found.stack <= allowed, what, spilled, rewrite if allowed else smaller)
    limit = SHARED_LIMIT[case.target]
    expect(
        found.shared <= limit,
        f"at most {limit} bytes of shared memory",
        f"{found.shared}",
        smaller,
    )
    must = multiplies_matrices(case)
    if must is not None:
        expect(
            (found.matrix_products > 0) is must,
            "tensor-core instructions" if must else "no tensor-core instruction",
            f"{found.matrix_products}",
            "look at the operands of tl.dot and its input_precision.",
        )
    narrow_loads = found.two_byte_loads if case.dtype in ("bf16", "fp16") else 0
    expect(
        narrow_loads == 0 or not aligned(case) or case.kernel in WITHOUT_A_ROW,
        "no two-byte load of aligned features",
        f"{narrow_loads}",
        "a mask with a value from memory, or a tile smaller than the program, forbids wide loads.",
    )
    # Their offsets stay inside the prototypes.
    narrow = () if case.kernel in OF_PROTOTYPES else found.narrow_products
    expect(
        not narrow,
        "64-bit products of image index, strides and pixels",
        " and ".join(narrow),
        "widen with .to(tl.int64) before the product.",
    )
    expect(
        not found.touched_early,
        "no memory of a running product to be touched",
        "; ".join(found.touched_early),
        "make the loop wait with `waited_for` of protocontrast/kernels/scores.py.",
    )
    return wrong
