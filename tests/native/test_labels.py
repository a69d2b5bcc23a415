"""Label values that C looks at: right and wrong ones, of every dtype, layout and variant."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast.checks import refuse_wrong_values
from protocontrast.native.labels import READ, are_right
from tests.native.variants import NAMES, variant
from tests.strategies import label_map, laid_out, layouts, seeds

SHAPES = [(0,), (1,), (130,), (2, 65), (2, 0), (0, 5), (2, 7, 19), (1, 1, 1)]
LIMITS = (-(2**63), -(2**31), -100, -1, 0, 4, 5, 255, 2**31 - 1, 2**31, 2**32 + 1, 2**63 - 1)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), seed=seeds)
def test_wrong_ones_are_those_that_torch_finds(name: str, data: st.DataObject, seed: int) -> None:
    dtype, shape = data.draw(st.sampled_from(READ)), data.draw(st.sampled_from(SHAPES))
    ignored = data.draw(st.sampled_from([one for one in LIMITS if not 0 <= one < 5]))
    labels = label_map(seed, shape, 5, "mixed", dtype, ignored)
    limits = torch.iinfo(dtype)
    odd = data.draw(st.sampled_from([one for one in LIMITS if limits.min <= one <= limits.max]))
    if labels.numel():
        labels.view(-1)[seed % labels.numel()] = odd
    labels = laid_out(labels, data.draw(layouts))
    try:
        refuse_wrong_values("here", labels.long(), 5, ignored)
        right = True
    except ValueError:
        right = False
    with variant(name):
        assert are_right(labels, 5, ignored) == right


@pytest.mark.parametrize("place", [0, 63, 64, 1000, 1999])
def test_one_wrong_label_is_enough(place: int) -> None:
    labels = torch.zeros(2, 1000, dtype=torch.int64)
    assert are_right(labels, 1, 255)
    labels.view(-1)[place] = 1
    assert not are_right(labels, 1, 255)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.bool])
def test_what_c_does_not_read_is_left_to_torch(dtype: torch.dtype) -> None:
    assert not are_right(torch.zeros(2, 3, dtype=dtype), 1, 255)
    assert not are_right(torch.zeros(1, 2, 3, 4, dtype=torch.int64), 1, 255)
    assert not are_right(torch.zeros(2, 3, dtype=torch.int64).as_subclass(Other), 1, 255)


class Other(torch.Tensor):
    """Of which nobody knows where its values are."""


@pytest.mark.usefixtures("nowhere")
def test_without_a_library() -> None:
    assert not are_right(torch.zeros(2, 3, dtype=torch.int64), 1, 255)
