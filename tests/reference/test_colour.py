"""Colour changes: looks change, geometry does not, numbers stay in range and follow the key."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch

from reference.data.colour import blur, change_colours, turn_hue
from reference.data.settings import Colours

ALL = Colours(probability=1.0, gamma=0.5, channels=0.1, noise=0.05, blur_probability=1.0)
OFF = Colours(
    probability=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur_probability=0.0
)
IMAGE = torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(0))


def _changed(settings: Colours, seed: int = 0, image: torch.Tensor = IMAGE) -> torch.Tensor:
    return change_colours(image, settings, np.random.default_rng(seed))


def test_changes_stay_in_range_and_leave_the_image_alone() -> None:
    before = IMAGE.clone()
    for seed in range(10):
        changed = _changed(ALL, seed)
        assert changed.shape == IMAGE.shape
        assert changed.dtype == torch.float32
        assert 0 <= changed.min() <= changed.max() <= 1
        assert torch.equal(changed, _changed(ALL, seed))
    assert torch.equal(IMAGE, before)
    assert not torch.equal(_changed(ALL, 0), _changed(ALL, 1))


def test_what_is_off_changes_nothing() -> None:
    assert torch.equal(_changed(OFF), IMAGE)
    assert torch.equal(_changed(Colours()), IMAGE)


@pytest.mark.parametrize(
    "field", ["brightness", "contrast", "saturation", "hue", "gamma", "channels", "noise"]
)
def test_each_strength_changes_something(field: str) -> None:
    assert not torch.allclose(_changed(replace(OFF, **{field: 0.3})), IMAGE, atol=1e-3)


def test_settings_do_not_change_which_numbers_are_drawn() -> None:
    after = []
    for settings in (ALL, OFF, Colours()):
        rng = np.random.default_rng(4)
        change_colours(IMAGE, replace(settings, noise=0.0), rng)
        after.append(rng.random())
    assert len(set(after)) == 1


def test_probabilities_hold() -> None:
    half = replace(ALL, probability=0.5, blur_probability=0.0, noise=0.0)
    same = sum(torch.equal(_changed(half, seed), IMAGE) for seed in range(200))
    assert 70 < same < 130


@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.0, 0.2])
def test_hue_turns_as_in_the_standard_library(turn: float) -> None:
    expected = torch.empty_like(IMAGE)
    for row in range(12):
        for column in range(20):
            hue, saturation, value = colorsys.rgb_to_hsv(*IMAGE[:, row, column].tolist())
            rgb = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            expected[:, row, column] = torch.tensor(rgb)
    torch.testing.assert_close(turn_hue(IMAGE, turn), expected, atol=1e-5, rtol=0)
    grey = torch.full((3, 4, 4), 0.4)
    torch.testing.assert_close(turn_hue(grey, turn), grey)


def test_blur_keeps_the_mean_of_a_point_and_flat_images() -> None:
    flat = torch.full((3, 9, 9), 0.25)
    torch.testing.assert_close(blur(flat, 1.0), flat)
    point = torch.zeros(3, 15, 15)
    point[:, 7, 7] = 1.0
    spread = blur(point, 1.0)
    assert spread.sum().item() == pytest.approx(3.0, rel=1e-5)
    assert spread[0, 7, 7].item() == pytest.approx(1 / (2 * np.pi), rel=0.02)
    torch.testing.assert_close(spread, spread.transpose(1, 2))
