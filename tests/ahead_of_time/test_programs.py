"""A large map keeps every multiprocessor of a large GPU busy, whatever its sums take."""

from itertools import product

import pytest

from protocontrast.kernels.launch import ENOUGH
from tests.ahead_of_time import calls
from tests.ahead_of_time.cases import TABLE, TARGETS, Case

MAPS = ((8, 32768, 256), (8, 32768, 720), (2, 32768, 2048))
"""Images, pixels of each, channels."""
LEAST = {256: ENOUGH, 720: ENOUGH, 2048: 128}
"""At 150 classes and 2048 channels the sums of 132 programs may take more than the map."""
KERNELS = [kernel for kernel in TABLE if not kernel.startswith("pair_")]


def programs(kernel: str, dtype: str, classes: int, size: tuple[int, int, int]) -> int:
    images, pixels, channels = size
    case = Case("sm90", kernel, dtype, "highest", channels, classes, "nchw", False, "cosine")
    return calls.launch_of(case, images, pixels).programs


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_large_map_occupies_a_whole_gpu(kernel: str, size: tuple[int, int, int]) -> None:
    for dtype in ("bf16", "fp32"):
        assert programs(kernel, dtype, 19, size) >= ENOUGH
        # Both sums of a distribution take twice as much.
        least = LEAST[size[2]] // (2 if kernel.startswith("distribution") else 1)
        assert programs(kernel, dtype, 150, size) >= least


@pytest.mark.parametrize("kernel", KERNELS)
def test_tiles_divide_a_span(kernel: str) -> None:
    """Else the tiles of two spans would overlap, and their pixels be summed twice."""
    for target, dtype, (images, pixels, channels) in product(TARGETS, ("bf16", "fp32"), MAPS):
        case = Case(target, kernel, dtype, "highest", channels, 19, "nchw", False, "cosine")
        launch = calls.launch_of(case, images, pixels)
        assert launch.meta.SPAN % launch.meta.BLOCK_P == 0, str(case)


@pytest.mark.parametrize("size", [(2, 8464, 256), (2, 25600, 256)])
@pytest.mark.parametrize("kernel", ["class_sums", "class_sums_normalize", "target_pass"])
def test_many_classes_leave_a_small_map_its_programs(
    kernel: str, size: tuple[int, int, int]
) -> None:
    """Their sums take more than a tenth of it."""
    assert programs(kernel, "bf16", 150, size) >= ENOUGH


def test_a_map_of_one_image_is_cut_into_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a share of the map's memory for their sums, one program has the whole image."""
    size = 1, 262144, 256
    assert programs("contrast_backward_both", "bf16", 19, size) >= ENOUGH
    monkeypatch.setattr("protocontrast.kernels.launch.SLOT_SHARES", (1 << 60, 1 << 60))
    monkeypatch.setattr("protocontrast.kernels.launch.SLOT_BYTES", 0)
    assert programs("contrast_backward_both", "bf16", 19, size) == 1
