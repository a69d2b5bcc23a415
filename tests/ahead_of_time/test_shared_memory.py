"""No row of the table asks for more shared memory than its target has, whatever the channels.

`SLOW` holds each row in every arithmetic, but not with every number of channels, and what is staged
depends on those. For most calls an upper bound is enough; of the others triton lays the memory out,
which takes no machine code.
"""

from collections.abc import Callable, Iterator

import pytest

from protocontrast.kernels.configs import power_of_two
from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import DAILY, DTYPES, TABLE, Case, everything, row
from tests.ahead_of_time.resources import SHARED_LIMIT, Resources, shared_memory

NVIDIA = ("sm80", "sm90", "sm100")
OFTEN = [case for case in DAILY if case.target == "sm90" and case.kernel in TABLE]


def bound(case: Case) -> int:
    """Bytes that no call takes more than: the tiles and prototypes on their way, the prototypes
    that are kept, and the largest result that changes its threads."""
    found = row(case)
    assert found is not None
    config, width = found.config, DTYPES[case.dtype].itemsize
    # Programs that keep prototypes keep a tile of all channels, too.
    block_d = power_of_two(case.channels)
    block_d = block_d if config.programs else min(config.block_d, block_d)
    # A pair's other side is as wide as its own, and slopes are looked up.
    columns = config.block_p if case.kernel.startswith("pair_") else power_of_two(case.classes)
    columns = 0 if case.kernel.startswith("class_sums_backward") else columns
    wide = max(4, width)
    kept = wide * columns * power_of_two(case.channels) if config.programs else 0
    staged = 0 if config.programs or "class_sums" in case.kernel else wide * columns * block_d
    staged += width * config.block_p * block_d
    sums = 2 * wide * block_d * columns
    result = max(width * config.block_p * block_d, wide * config.block_p * columns, sums)
    # A backward has a second product, and results of both.
    products = 2 if "backward" in case.kernel else 1
    return products * (config.num_stages * staged + result) + kept


def near() -> Iterator[Case]:
    """Calls that the bound does not clear, one of each arithmetic, row, layout and block."""
    told = set()
    for target in NVIDIA:
        for kernel in TABLE:
            for case in everything(target, kernel):
                found = row(case)
                assert found is not None
                block_d = min(found.config.block_d, power_of_two(case.channels))
                several = case.channels > block_d
                what = case.dtype, case.precision, case.similarity, case.layout
                key = target, kernel, found, what, block_d, several, power_of_two(case.classes)
                if bound(case) > SHARED_LIMIT[target] and key not in told:
                    told.add(key)
                    yield case


CLOSE = list(near())
# Of each kernel and target the call that may take most is asked every day.
MOST = {(case.target, case.kernel): case for case in sorted(CLOSE, key=bound)}.values()
NEAR = [
    pytest.param(case, id=str(case), marks=[] if case in MOST else pytest.mark.slow)
    for case in CLOSE
]


@pytest.mark.parametrize("asked", NEAR)
def test_a_call_that_takes_much_fits_its_target(asked: Case) -> None:
    limit = SHARED_LIMIT[asked.target]
    assert shared_memory(launch_of(asked), asked.target) <= limit


@pytest.mark.parametrize("case", [pytest.param(case, id=case.kernel) for case in OFTEN])
def test_the_bound_is_one(case: Case, resources: Callable[[Case], Resources]) -> None:
    assert resources(case).shared <= bound(case)


@pytest.mark.parametrize("kernel", ["contrast", "class_sums_normalize"])
def test_what_triton_lays_out_is_what_it_compiles(
    kernel: str, resources: Callable[[Case], Resources]
) -> None:
    (case,) = (each for each in OFTEN if each.kernel == kernel)
    assert shared_memory(launch_of(case), case.target) == resources(case).shared


@pytest.mark.parametrize(
    ("kernel", "dtype", "classes", "soft", "similarity"),
    [
        ("contrast", "fp16", 150, False, "dot"),
        ("contrast_backward_both", "bf16", 19, False, "dot"),
        ("contrast_backward_both", "bf16", 19, True, "cosine"),
        ("contrast_backward_both", "bf16", 19, True, "dot"),
        ("contrast_backward_prototypes", "bf16", 19, True, "cosine"),
        ("contrast_backward_prototypes", "bf16", 19, False, "dot"),
    ],
)
def test_a_large_map_fits_too(
    kernel: str, dtype: str, classes: int, soft: bool, similarity: str
) -> None:
    """Its spans have several tiles, of which some are on their way: how many, triton decides."""
    case = Case("sm90", kernel, dtype, "highest", 256, classes, "nchw", soft, similarity)
    assert shared_memory(launch_of(case, 8, 32768), "sm90") <= SHARED_LIMIT["sm90"]
