"""`benchmarks.bench_pair_contrast` compares like with like, and says where memory ends."""

import pytest
import torch

from benchmarks import bench_pair_contrast as bench


@pytest.mark.parametrize("name", bench.contenders())
def test_contenders_agree(name: str) -> None:
    bench.check(bench.contenders()[name], 48)


def test_a_contender_that_differs_is_refused() -> None:
    wrong = bench.Contender(lambda rows, labels: 1.01 * bench.dense(rows, labels), bench.dense)
    with pytest.raises(ValueError, match=r"check: expected an error of at most 1e-05, got 1"):
        bench.check(wrong, 48)


def test_dense_gradients_are_finite() -> None:
    value, gradient = bench.evaluated(bench.dense, *bench.rows_of(32))
    assert value > 0
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(10, 1.0), (20, 4.0)], (320, False)),
        ([(10, 1.0), (20, 16.0)], (57, False)),
        ([(10, 1.0), (20, 2000.0)], (20, True)),
        ([(10, 1.0), (20, 1.0)], None),
    ],
)
def test_where_memory_ends(
    sizes: list[tuple[int, float]], expected: tuple[int, bool] | None
) -> None:
    assert bench.passes(sizes, 1024.0) == expected


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
