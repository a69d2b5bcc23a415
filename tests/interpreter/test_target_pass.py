"""The kernel of the target pass over spans, at the edge of a map, and twice."""

import pytest
import torch

from tests.interpreter.small_spans import span_budget
from tests.test_target_pass import assert_pass_agrees, passed, plain_call


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("repeats", [1, 7])
def test_sums_over_one_and_over_many_spans(repeats: int, normalize: bool, slot_bytes: int) -> None:
    """7 channels fit one block, which stays with the program; 49 do not."""
    call = plain_call(torch.float64)
    for name in ("features", "prototypes", "nearest"):
        call[name] = torch.cat([call[name]] * repeats, dim=1)
    for name in ("features", "static"):
        call[name] = torch.cat([call[name]] * 2, dim=-1)
    with span_budget(slot_bytes):
        assert_pass_agrees({**call, "normalize": normalize}, torch.ones(5), "triton")


def test_pixels_of_a_tile_that_lie_beyond_the_map_take_no_transferred_label() -> None:
    """Every pixel is near enough, those of length 0 that fill a tile included."""
    call = plain_call()
    soft = torch.zeros(2, 5, call["features"].shape[-1])
    call |= {"targets": soft, "filling": None, "threshold": 0.01}
    assert_pass_agrees(call, torch.ones(5), "triton")


def test_two_runs_give_the_same_bits() -> None:
    first, second = (passed(plain_call(), "triton", torch.ones(5)) for _ in range(2))
    for mine, other in zip(
        first[0][:2] + first[0][3:5], second[0][:2] + second[0][3:5], strict=True
    ):
        assert torch.equal(mine, other)
    assert torch.equal(first[0].prototypes.mean, second[0].prototypes.mean)
    assert first[1] is not None and second[1] is not None
    assert torch.equal(first[1], second[1])
