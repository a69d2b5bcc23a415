"""The Triton kernel by which `benchmarks.gpu` measures bandwidth moves what it says it moves."""

import pytest
import torch


@pytest.mark.parametrize("mix", ["read", "write", "copy"])
@pytest.mark.parametrize("count", [4096, 5000])
def test_a_stream_touches_every_number(mix: str, count: int) -> None:
    from benchmarks.gpu.probes import stream

    source, into = torch.arange(count, dtype=torch.float32), torch.full((count,), -1.0)
    stream(mix, source, into, 1024)
    if mix == "read":
        sums = [block.sum().item() for block in source.split(1024)]
        assert into[: len(sums)].tolist() == pytest.approx(sums)
        assert (into[len(sums) :] == -1).all()
    else:
        assert torch.equal(into, source if mix == "copy" else torch.ones(count))
