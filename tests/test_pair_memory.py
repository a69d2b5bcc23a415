"""`benchmarks.pair_memory` compares like with like, and says where memory ends."""

import json

import pytest
import torch

from benchmarks import pair_memory as bench
from benchmarks.pairs import dense
from benchmarks.report import inserted


@pytest.mark.parametrize("name", bench.contenders())
def test_contenders_agree(name: str) -> None:
    bench.check(bench.contenders()[name], 48)


def test_a_contender_that_differs_is_refused() -> None:
    wrong = bench.Contender(lambda rows, labels: 1.01 * dense(rows, labels), dense)
    with pytest.raises(ValueError, match=r"check: expected an error of at most 1e-05, got 1"):
        bench.check(wrong, 48)


def test_dense_gradients_are_finite() -> None:
    value, gradient = bench.evaluated(dense, *bench.rows_of(32))
    assert value > 0
    assert torch.isfinite(gradient).all()


def test_the_peak_grows_with_the_pairs_until_they_do_not_fit() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = (bench.peak_mib(dense, anchors) for anchors in (64, 1024))
        none = bench.peak_mib(dense, 4096, limit_gib=0.1)
    finally:
        torch.set_num_threads(threads)
    assert small is not None and large is not None
    # 1024 x 1024 float32 are 4 MiB, and autograd holds several.
    assert small < 8 < 12 < large
    assert none is None


def test_the_table_says_where_it_ends() -> None:
    rows = [("ours", 8, 1.0), ("ours", 16, 2.0), ("theirs", 8, 30.0), ("theirs", 16, None)]
    stored = {
        "environment": {"device": "x", "torch": "2", "commit": "c", "date": "now"},
        "channels": 256,
        "limit_gib": 8,
        "rows": [dict(zip(("contender", "anchors", "peak_mib"), r, strict=True)) for r in rows],
    }
    lines = bench.render(stored).splitlines()[-2:]
    assert lines == ["| ours | 1.00 | 2.00 |  |", "| theirs | 30 | - | 16 |"]


def test_the_document_says_what_is_stored() -> None:
    stored = json.loads(bench.STORED.read_text("utf-8"))
    text = bench.DOCUMENT.read_text("utf-8")
    assert inserted(text, bench.BEGIN, bench.END) == bench.render(stored)
