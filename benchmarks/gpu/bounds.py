"""The least a call can take: bytes over bandwidth, or products over the matrix units' peak.

With N pixels, D channels, C classes and e bytes per element of the features:

    bound = max(floor bytes / bandwidth of the same mix, padded FLOPs / peak of the same dot mode)

Floor bytes are those of the features and their gradient, each touched once, of the labels and of
the numbers per pixel that one pass hands to the next. What a kernel touches beyond that is its own
doing and lowers its fraction of the bound.

Upsampled logits are features of as many channels as classes, with more labels than pixels. They
take no products; the exponentials, one per label and class, are not in the bound.
"""

from typing import NamedTuple

LABEL_BYTES = 8
STATISTIC_BYTES = 4
SMALLEST_BLOCK = 16
"""Matrix units multiply blocks of 16 rows or columns at least."""


class Traffic(NamedTuple):
    """What a pass touches per pixel beside the features, and how often it touches those."""

    reads: int
    writes: int
    label: bool
    statistic: bool

    @property
    def mix(self) -> str:
        """Which probe has the same mix of reads and writes."""
        if self.reads and self.writes:
            return "copy"
        return "read" if self.reads else "write"


# Contrast hands the log-sum-exp of each pixel to its backward. Plain class sums have a gradient
# that does not depend on the features.
TRAFFIC = {
    ("contrast", "forward"): Traffic(1, 0, True, True),
    ("contrast", "backward"): Traffic(1, 1, True, True),
    ("contrast", "backward to both"): Traffic(1, 1, True, True),
    ("class_prototypes", "forward"): Traffic(1, 0, True, False),
    ("class_prototypes", "backward"): Traffic(0, 1, True, False),
    ("transfer_labels", "forward"): Traffic(1, 0, True, True),
    ("upsampled_cross_entropy", "forward"): Traffic(1, 0, True, False),
    ("upsampled_cross_entropy", "backward"): Traffic(1, 1, True, False),
    ("upsampled_cross_entropy_aligned", "forward"): Traffic(1, 0, True, False),
    ("upsampled_cross_entropy_aligned", "backward"): Traffic(1, 1, True, False),
}

# Products of features with prototypes ("scores"), of slopes with prototypes ("pull") and of slopes
# with features ("sum") that a pass takes.
PRODUCTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("contrast", "forward"): ("scores",),
    ("contrast", "backward"): ("scores", "pull"),
    ("contrast", "backward to both"): ("scores", "pull", "sum"),
    ("class_prototypes", "forward"): ("sum",),
    ("class_prototypes", "backward"): ("pull",),
    ("transfer_labels", "forward"): ("scores",),
    ("upsampled_cross_entropy", "forward"): (),
    ("upsampled_cross_entropy", "backward"): (),
    ("upsampled_cross_entropy_aligned", "forward"): (),
    ("upsampled_cross_entropy_aligned", "backward"): (),
}

# A float32 factor beside 16-bit features is two 16-bit halves; where both factors are float32 the
# product of the lower halves is left out.
HALVES = {"scores": 2, "sum": 2, "pull": 3}
ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def floor_bytes(
    operator: str, direction: str, pixels: int, channels: int, dtype: str, labelled: int
) -> int:
    """Bytes that the pass must move; `labelled` counts labels, `pixels` unless they are finer."""
    traffic = TRAFFIC[operator, direction]
    features = (traffic.reads + traffic.writes) * channels * ELEMENT_BYTES[dtype]
    labels = labelled * traffic.label * LABEL_BYTES
    return pixels * (features + traffic.statistic * STATISTIC_BYTES) + labels


def padded(size: int) -> int:
    """The power of two, at least `SMALLEST_BLOCK`, that holds the classes."""
    return max(SMALLEST_BLOCK, 1 << (size - 1).bit_length())


def dot_mode(dtype: str, precision: str) -> str:
    """Which matrix peak binds: "16-bit", "tf32" or "ieee".

    `precision` is that of `torch.get_float32_matmul_precision()`.
    """
    if ELEMENT_BYTES[dtype] == 2:
        return "16-bit"
    return "ieee" if precision == "highest" else "tf32"


def repeats(product: str, dtype: str, precision: str) -> int:
    """How many products of the dot mode one product takes at this precision."""
    if ELEMENT_BYTES[dtype] == 2:
        return 1 if precision == "medium" else HALVES[product]
    # "high" is three tf32 products.
    return 3 if precision == "high" else 1


def padded_flops(
    operator: str,
    direction: str,
    pixels: int,
    channels: int,
    classes: int,
    dtype: str,
    precision: str,
) -> int:
    """Multiplications and additions of the matrix units, padding included."""
    depth = -(-channels // SMALLEST_BLOCK) * SMALLEST_BLOCK
    once = 2 * pixels * depth * padded(classes)
    return once * sum(repeats(p, dtype, precision) for p in PRODUCTS[operator, direction])


class Bound(NamedTuple):
    """The least time in microseconds, and what sets it: "bandwidth" or "products"."""

    time_us: float
    binds: str


def bound(moved: int, flops: int, bytes_per_second: float, flops_per_second: float) -> Bound:
    """The larger of the two times."""
    by_bytes = 1e6 * moved / bytes_per_second
    by_flops = 1e6 * flops / flops_per_second
    return Bound(by_bytes, "bandwidth") if by_bytes >= by_flops else Bound(by_flops, "products")
