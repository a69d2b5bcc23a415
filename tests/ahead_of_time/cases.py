"""What is compiled: every kernel, as the calls of calls.py launch it, for every target.

`everything` walks the calls that the library's users make; `SLOW` takes from them each kernel and
each configuration in every arithmetic, `FAST` one configuration per kernel and target, `DAILY`, the
part of it that `make test` compiles, every kernel for one maker of GPUs and some for the other.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch

from protocontrast.kernels.configs import LEFT, Row, may_leave_logits, power_of_two, row_of


class Case(NamedTuple):
    """One call: the target, the kernel by name and what the choice of a configuration depends on.

    `precision` is that of torch.set_float32_matmul_precision. `layout` is "nchw" (unit stride over
    pixels), "channels_last" (unit stride over channels), "odd" (nchw with an odd number of pixels)
    or "strided" (no unit stride, and a weight per pixel).
    """

    target: str
    kernel: str
    dtype: str
    precision: str
    channels: int
    classes: int
    layout: str
    soft: bool
    similarity: str

    @property
    def name(self) -> str:
        """What distinguishes the case from others of the same kernel and target."""
        labels = "soft" if self.soft else "hard"
        size = f"D{self.channels}-C{self.classes}"
        return f"{self.dtype}-{self.precision}-{size}-{self.layout}-{labels}-{self.similarity}"

    def __str__(self) -> str:
        return f"{self.target}-{self.kernel}-{self.name}"


TARGETS = ("sm80", "sm86", "sm90", "sm100", "gfx942")
CLASSES = (19, 60, 124, 150, 190)
ENDS = (19, 150, 190)
# dtype, precision, similarity, classes: all classes where the arithmetic is usual.
ARITHMETIC = (
    ("bf16", "highest", "cosine", CLASSES),
    ("fp32", "highest", "cosine", CLASSES),
    ("fp16", "highest", "cosine", ENDS),
    ("fp64", "highest", "cosine", ENDS),
    ("fp32", "high", "cosine", ENDS),
    ("fp32", "medium", "cosine", (19,)),
    ("bf16", "medium", "cosine", (19,)),
    ("bf16", "highest", "euclidean", ENDS),
)
DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
CHANNELS = (76, 256, 2048, 64, 720)
LAYOUTS = ("nchw", "channels_last")
MAP = (2, 8464)
"""Images of the released model and pixels of each, 92 x 92; 16 divides them."""

# Kernel -> its row of the configuration table. Which gradients are wanted is part of a kernel.
TABLE = {
    "contrast": "contrast",
    "contrast_kept": "contrast",
    "contrast_backward_features": "contrast_backward",
    "contrast_backward_prototypes": "contrast_backward_both",
    "contrast_backward_both": "contrast_backward_both",
    "distribution_contrast": "distribution_contrast",
    "distribution_contrast_backward_features": "distribution_contrast_backward",
    "distribution_contrast_backward_both": "distribution_contrast_backward_both",
    "transfer": "transfer",
    "target_pass": "target_pass",
    "target_pass_soft": "target_pass",
    "logits": "logits",
    "logits_backward_features": "logits_backward",
    "logits_backward_both": "logits_backward",
    "class_sums": "class_sums",
    "class_sums_normalize": "class_sums_normalize",
    "class_sums_backward": "class_sums_backward",
    "class_sums_backward_normalize": "class_sums_backward",
    "pair_normaliser": "pair_contrast",
    "pair_contrast": "pair_contrast",
    "pair_contrast_backward": "pair_contrast_backward",
    "pair_contrast_backward_keys": "pair_contrast_backward",
}
OF_PROTOTYPES = ("prepare", "finish", "bank_step", "equals", "reweigh", "step_end", "step_back")
"""These and the mean read nothing of the size of the features."""
UPSAMPLED = tuple(f"upsampled_cross_entropy{ending}" for ending in ("", "_backward", "_cells"))
WITHOUT_A_ROW = (*OF_PROTOTYPES, "mean", *UPSAMPLED)
KERNELS = (*TABLE, *WITHOUT_A_ROW)
SOFT = tuple(kernel for kernel in TABLE if kernel.startswith(("contrast", "distribution")))
COSINE_AT_MOST = tuple(
    kernel
    for kernel in TABLE
    if kernel.startswith(("class_sums", "target_pass", "pair_", "distribution"))
)
"""These know no similarity, or the cosine alone."""
LESSER = (
    "contrast_kept",
    "contrast_backward_prototypes",
    "logits_backward_features",
    "class_sums_backward",
)
"""One configuration of these is compiled: they do hardly more or less than another kernel of the
same row."""


def in_runs(case: Case) -> bool:
    """Whether every run of pixels or channels starts at a multiple of 16 bytes: `is_aligned` of
    the launcher, which keeps no tile of all channels where that is not so."""
    if case.layout == "channels_last":
        return case.channels * DTYPES[case.dtype].itemsize % 16 == 0
    return case.layout == "nchw"


def leaves_logits(case: Case) -> bool:
    """Whether the contrast leaves its logits to its gradients."""
    size = case.target, DTYPES[case.dtype].itemsize, case.channels, case.classes, in_runs(case)
    return case.similarity != "euclidean" and may_leave_logits(*size)


def row(case: Case) -> Row | None:
    """The row of the table that the case reaches; forwards of distances, and of soft targets of
    many classes, keep no prototypes, and float16 no sums of unit pixels."""
    if case.kernel in WITHOUT_A_ROW:
        return None
    kernel, width = TABLE[case.kernel], DTYPES[case.dtype].itemsize
    keeps = in_runs(case)
    if case.kernel == "class_sums_normalize":
        keeps = keeps and case.dtype != "fp16"
    if case.kernel.startswith("contrast_backward") and leaves_logits(case):
        kernel = LEFT["prototypes" in case.kernel]
    if kernel in ("contrast", "transfer", "logits"):
        keeps = keeps and case.similarity != "euclidean" and not (case.soft and case.classes > 128)
    return row_of(kernel, case.target, width, case.channels, case.classes, keeps)


def everything(target: str, kernel: str) -> Iterator[Case]:
    """Every call in question."""
    labels = (False, True) if kernel in SOFT else (False,)
    for dtype, precision, similarity, classes in ARITHMETIC:
        if kernel in COSINE_AT_MOST and similarity != "cosine":
            continue
        counts = classes[:1] if kernel.startswith("pair_") else classes  # pairs know no classes
        for count, channels, layout, soft in product(counts, CHANNELS, LAYOUTS, labels):
            yield Case(target, kernel, dtype, precision, channels, count, layout, soft, similarity)


def arithmetic(case: Case) -> tuple[str, ...] | None:
    """What a kernel computes with; None where that is not compiled in every tile."""
    usual = (case.precision, case.similarity) == ("highest", "cosine")
    if case.target == "sm86" and not (usual and case.dtype in ("bf16", "fp32")):
        return None  # the instructions of sm80 with less shared memory
    if case.kernel in WITHOUT_A_ROW and not (usual and case.dtype in ("bf16", "fp64")):
        return None  # no products, so no precision of theirs
    return None if case.kernel in LESSER else (case.dtype, case.precision, case.similarity)


def tile(case: Case) -> tuple[object, ...]:
    """What the size of a call decides in the compiled kernel: the row of the table and its tile."""
    block_c = power_of_two(case.classes)
    reached = row(case)
    if reached is None:
        return (block_c if case.kernel in UPSAMPLED else case.channels,)
    return reached, min(reached.config.block_d, power_of_two(case.channels)), block_c


def _selection() -> Iterator[Case]:
    """One case of each arithmetic and each tile; the axes that are left take turns."""
    for target, kernel in product(TARGETS, KERNELS):
        groups: dict[object, list[Case]] = {}
        for case in everything(target, kernel):
            if arithmetic(case) is not None:
                groups.setdefault((arithmetic(case), tile(case)), []).append(case)
        for number, group in enumerate(groups.values()):
            # Seven has no factor in common with the axes' lengths, so every value gets a turn.
            yield group[(7 * number) % len(group)]


FAST = tuple(
    Case(target, kernel, "bf16", "highest", 256, 19, "nchw", False, "cosine")
    for target, kernel in product(TARGETS, KERNELS)
)
ON_AMD = ("contrast", "contrast_backward_both", "class_sums", "pair_contrast", "bank_step")
DAILY = tuple(
    case
    for case in FAST
    if case.target == "sm90" or (case.target == "gfx942" and case.kernel in ON_AMD)
)
ODD = tuple(
    Case(target, kernel, "bf16", "highest", 256, 19, layout, kernel in SOFT, "cosine")
    for target, layout in (*product(TARGETS, ("odd",)), ("sm90", "strided"))
    for kernel in TABLE
)
LEAVING = tuple(
    Case("sm90", kernel, dtype, precision, channels, 19, layout, soft, similarity)
    for kernel in ("contrast_kept", "contrast_backward_prototypes")
    for dtype, precision, channels, layout, soft, similarity in (
        ("bf16", "highest", 720, "nchw", False, "cosine"),
        ("bf16", "highest", 2048, "channels_last", True, "cosine"),
        ("fp16", "highest", 2048, "nchw", True, "dot"),
        ("fp32", "highest", 720, "channels_last", False, "cosine"),
        ("fp32", "high", 256, "nchw", True, "cosine"),
    )
)
"""Contrasts that leave logits, and what only their way back has."""
TOO_FEW = 304
"""Channels of which the logits of 19 classes are an eighth, in 16 bits, and so are not left; of
those that no program keeps a tile of, the most."""
NOT_LEAVING = tuple(
    Case("sm90", kernel, dtype, "highest", TOO_FEW, 19, layout, soft, similarity)
    for kernel in ("contrast_kept", *(k for k in TABLE if k.startswith("contrast_backward")))
    for dtype, layout, soft, similarity in (
        ("bf16", "nchw", False, "cosine"),
        ("bf16", "channels_last", True, "cosine"),
        ("fp16", "nchw", True, "dot"),
    )
)
"""Contrasts of aligned runs that leave none though no program keeps a tile of all their channels:
the gradients read the features twice."""
SLOW = tuple(dict.fromkeys([*FAST, *ODD, *LEAVING, *NOT_LEAVING, *_selection()]))
