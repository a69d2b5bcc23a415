"""Crops: inside the image, the same for image and labels, never padded."""

import numpy as np
import pytest
from reference.data.crops import SourceCrops, TargetCrops, Window, draw_window, moved
from reference.data.resizing import Resize


def _marked(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose channels are row and column, and labels that are the column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, rows], axis=2), columns


def test_image_and_labels_are_cut_and_mirrored_together() -> None:
    image, labels = _marked(20, 30)
    crops = TargetCrops(Resize(size=(20, 30)), crop=(8, 12))
    seen = set()
    for seed in range(40):
        window = draw_window((20, 30), crops, np.random.default_rng(seed))
        part = window.image(image)
        assert part.shape == (8, 12, 3)
        assert np.array_equal(part[..., 1], window.labels(labels))
        first = 11 if window.flipped else 0
        assert (part[0, first, 0], part[0, first, 1]) == (window.top, window.left)
        seen.add((window.flipped, window.top > 6, window.left > 9))
    assert len(seen) == 8


def test_every_place_is_drawn() -> None:
    crops = TargetCrops(Resize(size=(4, 6)), crop=(3, 4))
    windows = [draw_window((9, 9), crops, np.random.default_rng(seed)) for seed in range(200)]
    assert {(each.top, each.left) for each in windows} == {
        (t, x) for t in (0, 1) for x in (0, 1, 2)
    }


def test_the_whole_image_without_a_crop() -> None:
    image, labels = _marked(20, 30)
    crops = TargetCrops(Resize(size=(10, 15)), crop=None, flip=0.0)
    window = draw_window((20, 30), crops, np.random.default_rng(0))
    assert window == Window((10, 15), 0, 0, (10, 15), False)
    assert window.image(image).shape == (10, 15, 3)
    assert window.labels(labels).shape == (10, 15)


def test_the_scale_is_drawn_from_its_range() -> None:
    crops = TargetCrops(Resize(size=(100, 200)), scale=(0.5, 2.0), crop=(50, 50))
    heights = [
        draw_window((7, 9), crops, np.random.default_rng(seed)).size[0] for seed in range(200)
    ]
    assert 50 <= min(heights) < 60 and 190 < max(heights) <= 200


def test_a_small_image_is_enlarged_until_it_covers_the_crop() -> None:
    image, _ = _marked(20, 60)
    crops = TargetCrops(Resize(short_side=(10, 12)), scale=(0.8, 1.2), crop=(33, 40))
    for seed in range(20):
        window = draw_window((20, 60), crops, np.random.default_rng(seed))
        assert window.size == (33, 99)
        assert window.image(image).shape == (33, 40, 3)


def test_labels_and_images_of_other_sizes_are_cut_alike() -> None:
    image, labels = _marked(20, 32)
    crops = TargetCrops(Resize(size=(20, 32)), crop=(8, 12))
    window = draw_window((20, 32), crops, np.random.default_rng(3))
    half = window.labels(labels[1::2, 1::2])
    assert np.abs(half.astype(int) - window.image(image)[..., 1]).max() <= 1


def test_moving_a_window_keeps_scale_and_mirroring() -> None:
    crops = TargetCrops(Resize(size=(20, 30)), crop=(8, 12))
    rng = np.random.default_rng(0)
    window = draw_window((20, 30), crops, rng)
    others = [moved(window, rng) for _ in range(20)]
    assert {(each.size, each.crop, each.flipped) for each in others} == {
        (window.size, window.crop, window.flipped)
    }
    assert len({(each.top, each.left) for each in others}) > 10


@pytest.mark.parametrize("kind", [SourceCrops, TargetCrops])
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"scale": (0.0, 1.0)}, "expected scale as (low, high) above 0, got (0.0, 1.0)."),
        ({"scale": (2.0, 1.0)}, "expected scale as (low, high) above 0, got (2.0, 1.0)."),
        ({"crop": (0, 4)}, "expected a crop of at least 1 pixel a side, got (0, 4)."),
        ({"flip": 2.0}, "expected flip within 0..1, got 2.0."),
        (
            {"crop": None, "scale": (0.5, 1.0), "resize": Resize(size=(4, 5))},
            "expected a crop where the size is drawn, got None with Resize(size=(4, 5), "
            "short_side=None) and scale (0.5, 1.0). Hint: the images of a batch must have one "
            "size.",
        ),
        (
            {"crop": None, "resize": Resize(short_side=(4, 5))},
            "expected a crop where the size is drawn, got None with Resize(size=None, "
            "short_side=(4, 5)) and scale (1.0, 1.0). Hint: the images of a batch must have one "
            "size.",
        ),
    ],
)
def test_settings_out_of_range_are_refused(kind, wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind(**wrong)
    assert str(caught.value) == f"{kind.__name__}: {sentence}"
