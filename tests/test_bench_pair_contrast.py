"""`benchmarks.bench_pair_contrast` compares like with like, and says where memory ends."""

import pytest
import torch

from benchmarks import bench_pair_contrast as bench


@pytest.mark.parametrize("name", bench.contenders())
def test_contenders_agree(name: str) -> None:
    bench.check(bench.contenders()[name], 48)


def test_a_contender_that_differs_is_refused() -> None:
    wrong = bench.Contender(lambda rows, labels: 1.01 * bench.dense(rows, labels), bench.dense, 2)
    with pytest.raises(ValueError, match=r"check: expected an error of at most 1e-05, got 1"):
        bench.check(wrong, 48)


def test_dense_gradients_are_finite() -> None:
    value, gradient = bench.evaluated(bench.dense, *bench.rows_of(32))
    assert value > 0
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("last", "power", "expected"),
    [(4.0, 2, (320, False)), (4.0, 4, (80, False)), (2000.0, 2, (20, True))],
)
def test_where_memory_ends(last: float, power: int, expected: tuple[int, bool]) -> None:
    assert bench.passes([(10, 1.0), (20, last)], 1024.0, power) == expected


def test_the_peak_grows_with_the_pairs() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = (bench.peak_mib("all pairs", anchors) for anchors in (64, 1024))
    finally:
        torch.set_num_threads(threads)
    assert small is not None and large is not None
    # 1024 x 1024 float32 are 4 MiB, and autograd holds several.
    assert small < 8 < 12 < large
