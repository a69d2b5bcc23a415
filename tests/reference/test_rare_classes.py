"""Rare-class sampling: the formula, who can be drawn, and how often it happens."""

import math

import numpy as np
import pytest
from reference.data.index import SetIndex

from reference.data.rare_classes import (
    GTA5_PIXELS,
    RareClasses,
    RareClassSampler,
    class_probabilities,
)


def _index(rows: dict[int, dict[int, int]]) -> SetIndex:
    pixels = np.zeros((len(rows), 19), dtype=np.int64)
    for row, counts in rows.items():
        for train_id, count in counts.items():
            pixels[row, train_id] = count
    sizes = np.full((len(rows), 2), 100)
    return SetIndex(tuple(map(str, rows)), sizes, pixels)


def test_probabilities_follow_the_formula() -> None:
    pixels = np.zeros(19, dtype=np.int64)
    pixels[[0, 3, 5]] = 50, 30, 20
    result = class_probabilities(pixels, 0.5)
    weights = {0: math.exp(0.5 / 0.5), 3: math.exp(0.7 / 0.5), 5: math.exp(0.8 / 0.5)}
    for train_id in range(19):
        expected = weights.get(train_id, 0.0) / sum(weights.values())
        assert result[train_id] == pytest.approx(expected, rel=1e-12)


def test_a_low_temperature_draws_the_rarest_and_a_high_one_all_alike() -> None:
    pixels = np.arange(1, 20, dtype=np.int64)
    assert class_probabilities(pixels, 1e-4).argmax() == 0
    assert class_probabilities(pixels, 1e-4)[0] > 0.999
    np.testing.assert_allclose(class_probabilities(pixels, 1e6), 1 / 19, rtol=1e-5)


def test_the_counts_of_gta5_draw_its_rare_classes() -> None:
    result = class_probabilities(GTA5_PIXELS, RareClasses().temperature)
    assert result.sum() == pytest.approx(1.0)
    assert set(np.argsort(result)[-3:].tolist()) == {12, 17, 18}
    assert result[0] < 1e-15
    with pytest.raises(ValueError, match="read-only"):
        GTA5_PIXELS[0] = 1


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        class_probabilities(np.zeros(19, dtype=np.int64), 0.01)
    assert str(caught.value) == (
        "class_probabilities: expected a pixel of at least 1 class, got none."
    )


def test_images_are_drawn_that_show_enough_of_the_class() -> None:
    index = _index({0: {0: 9000, 5: 4000}, 1: {0: 9000, 5: 2999}, 2: {0: 9000}})
    sampler = RareClassSampler(index, RareClasses(temperature=1.0))
    rng = np.random.default_rng(0)
    drawn = [sampler.draw(rng) for _ in range(300)]
    assert {each.image for each in drawn if each.train_id == 5} == {0}
    assert {each.image for each in drawn if each.train_id == 0} == {0, 1, 2}
    share = sum(each.train_id == 5 for each in drawn) / 300
    assert share == pytest.approx(sampler.probabilities[5], abs=0.1)


def test_a_class_that_no_image_shows_enough_of_is_never_drawn() -> None:
    sampler = RareClassSampler(_index({0: {0: 9000, 5: 100}, 1: {1: 5000}}))
    assert sampler.probabilities[5] == 0
    assert sampler.probabilities.sum() == pytest.approx(1.0)
    assert sampler.probabilities[1] > sampler.probabilities[0] > 0


def test_classes_left_are_drawn_alike_where_the_formula_leaves_nothing() -> None:
    index = _index({0: {0: 9000, 1: 9000, 5: 1}})
    sampler = RareClassSampler(index, RareClasses(temperature=1e-5))
    assert sampler.probabilities[[0, 1]].tolist() == [0.5, 0.5]


def test_the_same_generator_draws_the_same() -> None:
    sampler = RareClassSampler(_index({0: {0: 9000}, 1: {0: 9000, 3: 9000}}))
    first, again = (
        [sampler.draw(rng) for _ in range(20)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == again


def test_a_set_of_too_small_images_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        RareClassSampler(_index({0: {0: 700}, 1: {0: 20}}))
    assert str(caught.value) == (
        "RareClassSampler: expected an image with 3000 pixels of a class, got 700 at most in 2 "
        "images. Hint: lower min_pixels for small images."
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"temperature": 0.0}, "expected temperature > 0, got 0.0."),
        ({"min_pixels": 0}, "expected min_pixels of at least 1, got 0."),
        ({"max_crops": 0}, "expected max_crops of at least 1, got 0."),
        ({"min_crop_share": 1.5}, "expected min_crop_share within 0..1, got 1.5."),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        RareClasses(**wrong)  # type: ignore[arg-type]
    assert str(caught.value) == f"RareClasses: {sentence}"
