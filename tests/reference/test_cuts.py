"""Which image stands where, and what is cut out of it: computed from keys alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data.cuts import Order, Window, draw_window
from reference.data.settings import Crops

ORDER = Order(count=7, seed=3, stream=0, start=0, stop=12, batch_size=2)


def test_every_image_comes_once_an_epoch() -> None:
    images = [key.image for keys in replace(ORDER, stop=7) for key in keys]
    assert sorted(images[:7]) == sorted(images[7:]) == list(range(7))
    assert images[:7] != images[7:]


@pytest.mark.parametrize("start", [0, 1, 5, 11])
def test_any_start_gives_the_same_batches(start: int) -> None:
    assert list(replace(ORDER, start=start)) == list(ORDER)[start:]


def test_ranks_share_the_slots() -> None:
    halves = [list(replace(ORDER, batch_size=1, rank=rank, world=2)) for rank in (0, 1)]
    together = [first + second for first, second in zip(*halves, strict=True)]
    assert together == list(ORDER)


@pytest.mark.parametrize("change", [{"seed": 4}, {"stream": 1}])
def test_seeds_and_streams_differ(change: dict[str, int]) -> None:
    other = replace(ORDER, **change)
    assert list(other) != list(ORDER)
    key = ORDER.key(3, 1)
    assert other.generator(key).random() != ORDER.generator(key).random()
    assert ORDER.generator(key).random() == replace(ORDER, start=3).generator(key).random()


def test_a_broken_image_is_replaced_by_others_in_turn() -> None:
    tried = [ORDER.in_turn(0, 0, further).image for further in range(7)]
    assert tried[0] == ORDER.key(0, 0).image
    assert sorted(tried) == list(range(7))


CROPS = Crops(size=(40, 60), scale=(0.5, 2.0), crop=(16, 24))
PLAIN = replace(CROPS, scale=(1.0, 1.0))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(5, 90), width=st.integers(5, 90))
def test_windows_lie_inside_and_labels_are_cut_alike(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    for crops in (CROPS, replace(CROPS, size=None, short_side=(20, 50))):
        window = draw_window((height, width), crops, rng)
        assert 0 <= window.top <= window.size[0] - 16
        assert 0 <= window.left <= window.size[1] - 24
        labels = rng.integers(0, 19, (height, width), dtype=np.uint8)
        cut = window.labels(labels)
        assert cut.shape == (16, 24)
        assert set(np.unique(cut)) <= set(np.unique(labels))
    whole = Window((height, width), 0, 0, (height, width), True)
    np.testing.assert_array_equal(whole.labels(labels), labels[:, ::-1])
    image = whole.image(labels[..., None].repeat(3, -1))
    np.testing.assert_array_equal(image[..., 0], labels[:, ::-1])


def test_images_and_labels_are_cut_at_the_same_place() -> None:
    labels = (np.arange(40 * 60).reshape(40, 60) % 251).astype(np.uint8)
    image = labels[..., None].repeat(3, -1)
    for seed in range(20):
        window = draw_window((40, 60), PLAIN, np.random.default_rng(seed))
        np.testing.assert_array_equal(window.image(image)[..., 0], window.labels(labels))


def test_the_short_side_keeps_the_aspect() -> None:
    crops = replace(PLAIN, size=None, short_side=(30, 30))
    assert draw_window((60, 90), crops, np.random.default_rng(0)).size == (30, 45)
