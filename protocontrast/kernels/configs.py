"""Tile sizes per kernel, architecture, element size, channels and classes: a table, never tuned
at run time.

The first row of `ROWS` that fits a call is its configuration. Found by compiling ahead of time
with triton 3.7: tiles that spill no register and take less than 99 KB of shared memory, the most
that sm_86 has, except above 128 classes (64 of distributions), in float64 and for features without
aligned runs, where some spill a little at any size. tests/ahead_of_time holds each to its budget.
None was timed on a GPU.
"""

from functools import cache
from typing import NamedTuple

FAMILIES = ("interpreter", "sm80", "sm86", "sm90", "sm100", "gfx942")
"""sm86 stands for all that have 99 KB of shared memory (sm_86, sm_89, sm_120)."""

KERNELS = (
    *("contrast", "contrast_backward", "contrast_backward_both", "transfer"),
    *("logits", "logits_backward"),
    *("class_sums", "class_sums_normalize", "class_sums_backward", "target_pass"),
    *("pair_contrast", "pair_contrast_backward"),
    *("distribution_contrast", "distribution_contrast_backward"),
    "distribution_contrast_backward_both",
)
"""`contrast_backward` to the features alone, `_both` also or only to the prototypes."""

LEFT = ("contrast_backward_left", "slope_sums")
"""Where these have a row, a contrast may leave its logits to its gradients, of features and of
prototypes."""

FEW_CHANNELS = 128
"""Up to so many a float32 target pass adds to its slot, and has the tiles for it."""

LARGEST_TILE = 128
"""Pixels of the widest tile of a kernel that sums over pixels; every BLOCK_P of one divides it, so
sums split at the same pixels."""

SUM_NOTHING = (
    *("contrast", "transfer", "logits", "class_sums_backward"),
    *("contrast_backward", "distribution_contrast_backward"),
)
"""Rows of kernels whose results belong to one pixel each; their tiles may be wider."""


class Config(NamedTuple):
    """A tile of pixels and channels, and how a program runs.

    `programs`: so many on a multiprocessor, which keep the prototypes, of at most 160 classes, and
    walk tiles of all channels; 0: one for every tile, which reads them in blocks. `exact`: how
    float32 products that are to lose nothing are taken: "ieee" by no tensor cores, "bf16x6" as six;
    "thirds" as three, of class sums at any precision, since one factor is 0 or 1.
    """

    block_p: int
    block_d: int
    num_warps: int
    num_stages: int
    programs: int = 0
    exact: str = "ieee"


class Row(NamedTuple):
    """Where a configuration holds: one of each of the first three, up to the last two."""

    families: tuple[str, ...]
    kernels: tuple[str, ...]
    widths: tuple[int, ...]
    channels: int
    classes: int
    config: Config


ANY = 1 << 30
GPUS = FAMILIES[1:]
NVIDIA = ("sm80", "sm86", "sm90", "sm100")
FORWARD = ("contrast", "transfer", "logits")
FEATURES = ("contrast_backward",)
BOTH = ("contrast_backward_both", "logits_backward")
BACKWARD = (*FEATURES, *BOTH)
SUMS = ("class_sums", "class_sums_normalize")
SLOPES = ("class_sums_backward",)
PASS = ("target_pass",)
PAIRS = ("pair_contrast", "pair_contrast_backward")
DISTRIBUTION = ("distribution_contrast",)
DISTRIBUTION_FEATURES = ("distribution_contrast_backward",)
DISTRIBUTION_BOTH = ("distribution_contrast_backward_both",)
WALKING = (*FORWARD, *FEATURES, *BOTH[:1])
DISTRIBUTIONS = (*DISTRIBUTION, *DISTRIBUTION_FEATURES, *DISTRIBUTION_BOTH)

ROWS: tuple[Row, ...] = (
    # Small, so that a test of a hundred pixels and 33 channels meets every seam.
    Row(("interpreter",), WALKING, (2, 4, 8), 64, 64, Config(32, 32, 4, 1, 2)),
    Row(("interpreter",), FORWARD[:1], (2, 4, 8), 64, 160, Config(32, 32, 4, 1, 2)),
    Row(("interpreter",), SUMS[1:], (2, 8), 96, 32, Config(32, 32, 4, 1, 1)),
    Row(("interpreter",), SUMS, (4,), ANY, 32, Config(32, 32, 4, 1, 0, "thirds")),
    Row(("interpreter",), LEFT, (2, 4, 8), ANY, 32, Config(32, 32, 4, 1)),
    Row(("interpreter",), KERNELS, (2, 4, 8), ANY, ANY, Config(32, 32, 4, 1)),
    # float64 serves gradient checks.
    Row(GPUS, KERNELS, (8,), ANY, 32, Config(32, 32, 4, 1)),
    Row(GPUS, KERNELS, (8,), ANY, ANY, Config(16, 16, 8, 1)),
    # A tile of all channels stays with the program between the passes of a backward; float32
    # products, which use no tensor cores, leave no registers for it.
    Row(("sm90",), FEATURES, (2,), 256, 32, Config(64, 64, 4, 2, 2)),
    Row(("sm100",), FEATURES, (2,), 128, 32, Config(64, 128, 8, 1)),
    Row(("sm80", "gfx942"), FEATURES, (2,), 128, 32, Config(32, 128, 4, 1)),
    # Larger ones are read again, from cache, and so are the prototypes, by every tile.
    Row(("sm90",), FEATURES, (2,), ANY, 32, Config(256, 32, 8, 3)),
    Row(NVIDIA, FEATURES, (2,), ANY, 32, Config(128, 32, 4, 2)),
    Row(("sm90",), FORWARD, (4,), ANY, 32, Config(128, 32, 4, 3, 0, "bf16x6")),
    Row(("sm90",), (*FEATURES, *BOTH[:1]), (4,), ANY, 32, Config(64, 32, 4, 2, 0, "bf16x6")),
    Row(("sm90",), FORWARD, (2,), 128, 32, Config(128, 128, 4, 3, 2)),
    Row(("sm90",), FORWARD, (2,), 256, 32, Config(64, 256, 4, 3, 2)),
    Row(("sm90",), FORWARD, (2,), ANY, 32, Config(256, 16, 8, 8)),
    Row(("sm80",), FORWARD, (2,), ANY, 32, Config(128, 64, 4, 3)),
    Row(("sm100",), FORWARD, (2,), ANY, 32, Config(128, 64, 8, 2)),
    Row(GPUS, FORWARD, (2,), ANY, 32, Config(128, 64, 4, 2)),
    # The sums of all channels stay in registers; a second tile is on its way beside one program.
    Row(("sm90",), BOTH[:1], (2,), 256, 32, Config(128, 64, 8, 3, 1)),
    # Of logits that the forward left.
    Row(("sm90",), LEFT[:1], (2,), ANY, 32, Config(128, 64, 4, 2)),
    Row(("sm90",), LEFT[1:], (2,), ANY, 32, Config(64, 128, 8, 2, 1)),
    Row(("sm90",), LEFT[:1], (4,), ANY, 32, Config(64, 64, 4, 2, 0, "bf16x6")),
    Row(("sm90",), LEFT[1:], (4,), ANY, 32, Config(64, 128, 8, 2, 1, "bf16x6")),
    Row(NVIDIA, BOTH[1:], (2,), ANY, 32, Config(64, 32, 4, 2)),
    Row(("sm100",), BOTH[:1], (2,), ANY, 32, Config(64, 64, 8, 1)),
    Row(GPUS, BACKWARD, (2,), ANY, 32, Config(64, 64, 4, 2)),
    # Lengths over several blocks of channels are a loop of their own, with stages of its own.
    Row(("sm90",), SUMS, (2,), 256, 32, Config(128, 256, 8, 3)),
    Row(("sm90",), SUMS[1:], (2,), 768, 32, Config(64, 256, 8, 3, 1)),
    Row(("sm90",), SUMS[1:], (2,), ANY, 32, Config(128, 128, 8, 3)),
    Row(("sm90",), SUMS, (2,), ANY, 32, Config(128, 256, 8, 3)),
    Row(("sm80", "sm86"), SUMS, (2,), 128, 32, Config(64, 128, 8, 2)),
    Row(("sm80",), SUMS[:1], (2,), ANY, 32, Config(64, 64, 4, 3)),
    Row(GPUS, SUMS, (2,), ANY, 32, Config(64, 64, 8, 2)),
    # Classes are looked up, and do not matter.
    Row(GPUS, SLOPES, (2,), 128, ANY, Config(16, 128, 2, 1)),
    # Without aligned runs a tile of so many has no registers for its elements' addresses.
    Row(GPUS, SLOPES, (2,), 256, ANY, Config(16, 256, 2, 1, 1)),
    Row(GPUS, SLOPES, (2,), ANY, ANY, Config(128, 64, 4, 1)),
    Row(("sm100",), SLOPES, (4,), ANY, ANY, Config(64, 32, 4, 1)),
    Row(GPUS, SLOPES, (4,), ANY, ANY, Config(64, 64, 4, 1)),
    Row(("gfx942",), BOTH, (4,), ANY, 32, Config(32, 32, 4, 2)),
    # BLOCK_P rows of one side meet as many of the other, and classes do not matter.
    Row(("sm100",), PAIRS[1:], (2,), ANY, ANY, Config(32, 32, 4, 2)),
    Row(GPUS, PAIRS[1:], (4,), ANY, ANY, Config(32, 32, 8, 1)),
    Row(GPUS, PAIRS[:1], (4,), ANY, ANY, Config(32, 32, 4, 2)),
    # Two products of a tile, and of 16-bit features the squares in halves.
    Row(GPUS, DISTRIBUTION, (2,), ANY, 32, Config(64, 64, 4, 2)),
    Row(GPUS, DISTRIBUTION_FEATURES, (2,), ANY, 32, Config(64, 32, 8, 2)),
    Row(("sm80",), DISTRIBUTION_BOTH, (2,), ANY, 32, Config(32, 32, 8, 2)),
    Row(("sm100",), DISTRIBUTION_BOTH, (2,), ANY, 32, Config(32, 32, 8, 1)),
    Row(GPUS, DISTRIBUTION_BOTH, (2,), ANY, 32, Config(32, 32, 4, 2)),
    Row(GPUS, DISTRIBUTION, (4,), ANY, 32, Config(64, 32, 4, 2)),
    Row(("gfx942",), DISTRIBUTIONS[1:], (4,), ANY, 32, Config(32, 32, 4, 2)),
    Row(("sm86",), DISTRIBUTION_BOTH, (4,), ANY, 32, Config(32, 16, 8, 1)),
    Row(NVIDIA, DISTRIBUTIONS[1:], (4,), ANY, 32, Config(16, 32, 8, 1)),
    Row(GPUS, DISTRIBUTION, (2, 4), ANY, 64, Config(32, 32, 8, 2)),
    Row(("sm100",), DISTRIBUTION, (4,), ANY, ANY, Config(16, 16, 8, 1)),
    Row(GPUS, DISTRIBUTION, (2, 4), ANY, ANY, Config(32, 16, 8, 2)),
    Row(("sm80", "sm90"), DISTRIBUTION_BOTH, (2,), ANY, ANY, Config(16, 32, 8, 2)),
    Row(GPUS, DISTRIBUTIONS[1:], (2,), ANY, ANY, Config(16, 32, 8, 1)),
    Row(("sm90",), DISTRIBUTION_BOTH, (4,), ANY, 64, Config(16, 16, 4, 1)),
    Row(("sm80", "sm90", "sm100"), DISTRIBUTION_BOTH, (4,), ANY, ANY, Config(16, 16, 8, 2)),
    Row(GPUS, DISTRIBUTIONS[1:], (4,), ANY, ANY, Config(16, 16, 8, 1)),
    Row(("sm80", "sm86"), BOTH, (4,), ANY, 32, Config(32, 32, 8, 2)),
    Row(("sm100",), BOTH, (4,), ANY, 32, Config(64, 32, 8, 1)),
    Row(("sm90",), PASS, (4,), FEW_CHANNELS, 32, Config(64, 16, 8, 2)),
    Row(("sm90",), PASS, (4,), ANY, 32, Config(128, 16, 4, 3, 0, "bf16x6")),
    Row(NVIDIA, PASS, (4,), ANY, 32, Config(64, 16, 8, 2)),
    Row(GPUS, (*BOTH, *PASS), (4,), ANY, 32, Config(64, 32, 8, 2)),
    Row(("sm90",), SUMS, (4,), 256, 32, Config(64, 256, 8, 3, 0, "thirds")),
    Row(NVIDIA, SUMS, (4,), ANY, 32, Config(64, 32, 8, 2)),
    Row(GPUS, KERNELS, (4,), ANY, 32, Config(64, 32, 4, 2)),
    Row(GPUS, FORWARD, (2,), ANY, 128, Config(64, 32, 4, 2)),
    Row(("sm90",), PASS, (2,), 256, 32, Config(128, 256, 8, 3)),
    Row(("sm80", "sm100"), PASS, (2,), 256, 32, Config(64, 256, 8, 2)),
    Row(("sm90",), PASS, (2,), ANY, 32, Config(128, 64, 4, 3)),
    Row(GPUS, PASS, (2,), ANY, 32, Config(64, 32, 8, 2)),
    Row(("gfx942",), PASS, (2, 4), ANY, 64, Config(16, 32, 4, 1)),
    Row(("sm100",), PASS, (2,), ANY, 64, Config(32, 32, 8, 1)),
    Row(NVIDIA, PASS, (2,), ANY, 64, Config(32, 32, 8, 2)),
    Row(("sm90",), SUMS, (2,), ANY, 64, Config(64, 64, 8, 3)),
    Row(("sm86", "sm100"), SUMS, (2,), ANY, 64, Config(32, 32, 8, 2)),
    Row(GPUS, KERNELS, (2,), ANY, 64, Config(64, 32, 8, 2)),
    Row(GPUS, FORWARD, (4,), ANY, 64, Config(64, 32, 8, 2)),
    Row(("sm90",), SUMS, (4,), ANY, 64, Config(64, 32, 8, 1)),
    Row(("sm90",), SUMS, (4,), ANY, 128, Config(16, 32, 8, 1)),
    Row(GPUS, SUMS, (4,), ANY, 64, Config(32, 32, 8, 1)),
    Row(("sm100",), PASS, (4,), ANY, 128, Config(32, 16, 8, 2)),
    Row(("sm90", "sm100"), SUMS, (2,), ANY, 128, Config(16, 32, 8, 2)),
    Row(("sm100",), SUMS, (4,), ANY, 128, Config(32, 32, 8, 2)),
    Row(("sm90",), BOTH[:1], (2,), ANY, 128, Config(32, 32, 8, 1)),
    Row(("sm86",), BOTH[:1], (4,), ANY, 64, Config(32, 32, 8, 2)),
    Row(("sm86",), BOTH[:1], (4,), ANY, 128, Config(32, 16, 8, 2)),
    Row(GPUS, KERNELS, (2, 4), ANY, 128, Config(32, 32, 8, 2)),
    # Both halves of 160 prototypes, and two tiles.
    Row(("sm90",), FORWARD[:1], (2,), 256, 160, Config(64, 64, 4, 3, 1)),
    Row(("sm90",), FORWARD, (2,), ANY, ANY, Config(128, 64, 8, 2)),
    Row(("sm100",), FORWARD, (2,), ANY, ANY, Config(32, 32, 4, 2)),
    Row(GPUS, FORWARD, (2,), ANY, ANY, Config(32, 32, 8, 2)),
    Row(GPUS, FORWARD, (4,), ANY, ANY, Config(32, 16, 8, 2)),
    Row(GPUS, SUMS, (4,), ANY, ANY, Config(16, 32, 8, 1)),
    Row(("sm90", "sm100"), SUMS, (2,), ANY, ANY, Config(32, 32, 8, 1)),
    Row(GPUS, SUMS, (2,), ANY, ANY, Config(32, 32, 8, 2)),
    Row(GPUS, PASS, (2,), ANY, ANY, Config(16, 32, 8, 1)),
    Row(GPUS, BACKWARD, (2,), ANY, ANY, Config(16, 32, 8, 1)),
    Row(GPUS, KERNELS, (2, 4), ANY, ANY, Config(16, 16, 8, 1)),
)


def power_of_two(least: int) -> int:
    """The smallest power of two that is at least `least`, and at least 16 as matrix units need."""
    return max(16, 1 << (least - 1).bit_length())


@cache
def find_row(
    kernel: str, family: str, width: int, channels: int, classes: int, keeps: bool = True
) -> Row | None:
    """The first row that fits; `keeps`: one whose programs keep prototypes and a tile of all
    channels may be that. It is remembered: `exchange` forgets it."""
    for row in ROWS:
        fits = family in row.families and kernel in row.kernels and width in row.widths
        fits = fits and (keeps or not row.config.programs)
        if fits and channels <= row.channels and classes <= row.classes:
            return row
    return None


def row_of(
    kernel: str, family: str, width: int, channels: int, classes: int, keeps: bool = True
) -> Row:
    """The same, and there must be one."""
    row = find_row(kernel, family, width, channels, classes, keeps)
    if row is None:
        raise RuntimeError(f"configuration: expected a row for {kernel} on {family}, got none.")
    return row


@cache
def configuration(
    kernel: str, family: str, width: int, channels: int, classes: int, keeps: bool = True
) -> Config:
    """The configuration of a kernel for features of `width` bytes per element.

    `keeps` is for `row_of`. The answer is remembered: `exchange` forgets it.
    """
    config = row_of(kernel, family, width, channels, classes, keeps).config
    if family == "gfx942":
        # A warp is twice as wide there, and more than four share their registers.
        config = config._replace(num_warps=4)
    return config._replace(block_d=min(config.block_d, power_of_two(channels)))


def may_leave_logits(
    family: str, width: int, channels: int, classes: int, keeps: bool = True
) -> bool:
    """Whether a contrast leaves the logits of products: where the table has tiles for their way
    back, and they take less than an eighth of the features, which would be read twice without them.
    """
    if 8 * classes * max(4, width) >= channels * width:
        return False
    size = family, width, channels, classes, keeps
    kept = configuration("contrast_backward_both", *size).programs > 0
    return not kept and find_row(LEFT[1], *size) is not None


def exchange(rows: tuple[Row, ...]) -> None:
    """Take other rows from now on."""
    global ROWS
    ROWS = rows
    find_row.cache_clear()
    configuration.cache_clear()
