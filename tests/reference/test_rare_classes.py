"""Rare-class sampling: the formula, the counts it needs, and what it draws."""

import os
from pathlib import Path

import numpy as np
import pytest

from reference.data import rare_classes
from reference.data.image_set import ImageSet
from reference.data.sets import Sets
from reference.data.settings import DataSettings, RareClasses
from tests.reference.trees import make, save_values

COUNTS = np.array([[90, 0, 5], [80, 20, 0], [100, 0, 0]])


@pytest.fixture
def source(tmp_path: Path) -> ImageSet:
    make(tmp_path / "gta5", "gta5")
    return Sets(DataSettings(root=tmp_path)).source


def test_the_formula() -> None:
    shares = rare_classes.class_probabilities(np.array([70, 30, 0]), 0.5)
    weights = np.exp([0.3 / 0.5, 0.7 / 0.5])
    np.testing.assert_allclose(shares, [*(weights / weights.sum()), 0.0])
    low = rare_classes.class_probabilities(np.array([10**10, 10**6, 10**7]), 0.01)
    assert low.argmax() == 1
    assert low.sum() == pytest.approx(1.0)


def test_images_show_the_class_they_are_drawn_for() -> None:
    sampler = rare_classes.RareClassSampler(COUNTS, RareClasses(temperature=0.5, min_pixels=5))
    rng = np.random.default_rng(0)
    drawn = [sampler.draw(rng) for _ in range(300)]
    assert all(one is not None and COUNTS[one] >= 5 for one in drawn)
    shares = np.bincount([one[1] for one in drawn if one is not None], minlength=3) / 300
    np.testing.assert_allclose(shares, sampler.probabilities, atol=0.08)


def test_a_class_without_enough_pixels_is_not_drawn() -> None:
    sampler = rare_classes.RareClassSampler(COUNTS, RareClasses(min_pixels=10))
    assert sampler.probabilities[2] == 0
    assert sampler.probabilities.sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="an image with 3000 pixels of a class, got 100 at most"):
        rare_classes.RareClassSampler(COUNTS, RareClasses())


def test_a_share_of_the_draws_is_left_to_the_order() -> None:
    sampler = rare_classes.RareClassSampler(COUNTS, RareClasses(min_pixels=5, share=0.3))
    rng = np.random.default_rng(0)
    assert 60 < sum(sampler.draw(rng) is not None for _ in range(300)) < 120


def test_counts_are_kept_until_a_label_file_changes(source: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    assert rare_classes.kept_counts(source, folder) is None
    counts = rare_classes.class_counts(source, folder)
    assert counts[0, 0] == int((source.labels(0) == 0).sum())
    np.testing.assert_array_equal(rare_classes.kept_counts(source, folder), counts)
    label = source.samples[1].labels
    os.utime(label, (1, 1))
    assert rare_classes.kept_counts(source, folder) is None
    save_values(label, np.full((8, 12), 26, dtype=np.uint8))
    assert rare_classes.class_counts(source, folder)[1, 13] == 96
    merged = Sets(DataSettings(root=source.root.parent, merge=("road=car",))).source
    assert rare_classes.counts_path(merged) != rare_classes.counts_path(source)


def test_damaged_counts_are_made_again(source: ImageSet, tmp_path: Path) -> None:
    counts = rare_classes.class_counts(source, tmp_path)
    for content in ("{", '{"stems": []}', "[]"):
        rare_classes.counts_path(source, tmp_path).write_text(content)
        assert rare_classes.kept_counts(source, tmp_path) is None
        np.testing.assert_array_equal(rare_classes.class_counts(source, tmp_path), counts)
