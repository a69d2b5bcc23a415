"""Colour jitter and blur: within range, keyed, and neutral where they are set to nothing."""

import numpy as np
import pytest

from reference.data.colour import ColourJitter, change_colours

STILL = ColourJitter(0.0, 0.2, 0.2, 0.2, 0.2, 0.0)


def _image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((9, 11, 3), dtype=np.float32)


def _only(**strengths: float) -> ColourJitter:
    settings = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return ColourJitter(1.0, **{**settings, **strengths}, blur_probability=0.0)


def test_probability_0_changes_nothing() -> None:
    image = _image()
    assert np.array_equal(change_colours(image, STILL, np.random.default_rng(0)), image)


def test_strength_0_changes_nothing() -> None:
    changed = change_colours(_image(), _only(), np.random.default_rng(0))
    np.testing.assert_allclose(changed, _image(), atol=2e-6)


def test_the_same_generator_gives_the_same_look_and_another_does_not() -> None:
    first, again, other = (
        change_colours(_image(), ColourJitter(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(8))
def test_range_type_and_input_are_kept(seed: int) -> None:
    image = _image()
    changed = change_colours(image, ColourJitter(), np.random.default_rng(seed))
    assert changed.dtype == np.float32 and changed.shape == image.shape
    assert changed.min() >= 0.0 and changed.max() <= 1.0
    assert np.array_equal(image, _image())


def test_the_number_of_draws_does_not_depend_on_what_is_drawn() -> None:
    states = set()
    for settings in (STILL, ColourJitter(), _only(hue=0.2)):
        rng = np.random.default_rng(7)
        change_colours(_image(), settings, rng)
        states.add(rng.random())
    assert len(states) == 1


def test_brightness_scales_every_pixel_alike() -> None:
    image = 0.5 * _image()
    ratio = change_colours(image, _only(brightness=0.2), np.random.default_rng(0)) / image
    assert np.ptp(ratio) < 1e-4
    assert 0.8 <= ratio.mean() <= 1.2 and abs(ratio.mean() - 1) > 1e-3


def test_saturation_leaves_grey_as_it_is() -> None:
    grey = np.full((4, 4, 3), 0.4, np.float32)
    changed = change_colours(grey, _only(saturation=1.0), np.random.default_rng(0))
    np.testing.assert_allclose(changed, grey, atol=1e-6)


def test_contrast_moves_pixels_from_their_mean() -> None:
    image = 0.25 + 0.5 * _image()
    changed = change_colours(image, _only(contrast=0.4), np.random.default_rng(0))
    assert abs(changed.std() / image.std() - 1) > 0.01
    assert changed.mean() == pytest.approx(image.mean(), abs=0.02)


def test_hue_turns_colours_and_keeps_the_largest_channel() -> None:
    changed = change_colours(_image(), _only(hue=0.5), np.random.default_rng(0))
    np.testing.assert_allclose(changed.max(axis=2), _image().max(axis=2), atol=1e-5)
    assert not np.allclose(changed, _image(), atol=0.01)


def test_blur_spreads_a_dot_and_keeps_its_sum() -> None:
    dot = np.zeros((15, 15, 3), np.float32)
    dot[7, 7] = 1.0
    settings = ColourJitter(0.0, blur_probability=1.0, blur_sigma=(1.0, 1.0))
    spread = change_colours(dot, settings, np.random.default_rng(0))
    assert spread[7, 7, 0] < 0.5
    assert spread[..., 0].sum() == pytest.approx(1.0, abs=1e-4)


def test_shares_of_changed_and_blurred_images() -> None:
    image = _image()
    settings = ColourJitter(0.0, blur_probability=0.5)
    same = [
        np.array_equal(change_colours(image, settings, np.random.default_rng(seed)), image)
        for seed in range(200)
    ]
    assert 0.4 < np.mean(same) < 0.6


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"probability": 1.1}, "expected probability within 0..1, got 1.1."),
        ({"brightness": -0.1}, "expected brightness within 0..1, got -0.1."),
        ({"hue": 0.6}, "expected hue within 0..0.5, got 0.6."),
        ({"blur_sigma": (2, 1)}, "expected blur_sigma as (low, high) above 0, got (2, 1)."),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        ColourJitter(**wrong)  # type: ignore[arg-type]
    assert str(caught.value) == f"ColourJitter: {sentence}"
