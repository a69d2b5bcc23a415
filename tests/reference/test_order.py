"""The order of images: a function of its key alone, every image once an epoch, ranks disjoint."""

import random

import numpy as np
import pytest
import torch
from reference.data.index import SetIndex
from reference.data.order import SOURCE_STREAM, TARGET_STREAM, Key, Order

from reference.data.rare_classes import RareClasses, RareClassSampler


def _order(**changes: object) -> Order:
    settings = {
        "count": 7,
        "seed": 0,
        "stream": SOURCE_STREAM,
        "start": 0,
        "stop": 10,
        "batch_size": 2,
    }
    return Order(**{**settings, **changes})  # type: ignore[arg-type]


def _rare() -> RareClassSampler:
    pixels = np.zeros((7, 19), dtype=np.int64)
    pixels[:, 0], pixels[3, 5] = 900, 50
    index = SetIndex(tuple("abcdefg"), np.full((7, 2), 30), pixels)
    return RareClassSampler(index, RareClasses(min_pixels=40))


@pytest.mark.parametrize("rare", [None, _rare()])
@pytest.mark.parametrize("start", [1, 4, 9])
def test_starting_later_gives_the_same_batches(rare: RareClassSampler | None, start: int) -> None:
    whole = list(_order(rare=rare))
    assert list(_order(rare=rare, start=start)) == whole[start:]
    assert len(_order(rare=rare, start=start)) == 10 - start


def test_every_image_comes_once_an_epoch() -> None:
    keys = [key for batch in _order(stop=21, batch_size=1) for key in batch]
    epochs = [[key.image for key in keys[first : first + 7]] for first in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("change", [{"seed": 1}, {"stream": TARGET_STREAM}])
def test_seed_and_stream_count(change: dict[str, int]) -> None:
    assert list(_order()) != list(_order(**change))


@pytest.mark.parametrize("rare", [None, _rare()])
def test_ranks_divide_the_slots_of_one_rank(rare: RareClassSampler | None) -> None:
    union = list(_order(rare=rare, batch_size=6))
    ranks = [list(_order(rare=rare, rank=rank, world=3)) for rank in range(3)]
    joined = [[key for part in parts for key in part] for parts in zip(*ranks, strict=True)]
    assert joined == union


def test_rare_classes_are_drawn_with_images_that_show_them() -> None:
    keys = [key for batch in _order(rare=_rare(), stop=100) for key in batch]
    assert {key.image for key in keys if key.train_id == 5} == {3}
    assert sum(key.train_id == 5 for key in keys) > 150


def test_generators_follow_the_whole_key() -> None:
    order, key = _order(), Key(3, 1, 4)
    first = order.generator(key).random()
    assert order.generator(key).random() == first
    others = [Key(4, 1, 4), Key(3, 0, 4), Key(3, 1, 5)]
    others_first = {order.generator(other).random() for other in others}
    others_first |= {_order(**{name: 1}).generator(key).random() for name in ("seed", "stream")}
    assert len(others_first | {first}) == 6


def test_global_random_state_is_neither_read_nor_changed() -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    first = list(_order(rare=_rare()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    np.random.seed(5)
    assert list(_order(rare=_rare())) == first


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"count": 0}, "expected a set of at least 1 image, got 0."),
        ({"seed": -1}, "expected seed of at least 0, got -1."),
        ({"start": 11}, "expected 0 <= start <= stop, got start 11 and stop 10."),
        ({"start": -1}, "expected 0 <= start <= stop, got start -1 and stop 10."),
        ({"batch_size": 0}, "expected batch_size of at least 1, got 0."),
        ({"rank": 2, "world": 2}, "expected rank within 0..world - 1, got rank 2 of 2."),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        _order(**wrong)
    assert str(caught.value) == f"Order: {sentence}"
