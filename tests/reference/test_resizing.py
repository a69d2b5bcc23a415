"""Scaling: areas are averaged, labels keep their values, corners stay where they are."""

import ast
from pathlib import Path

import numpy as np
import pytest
from reference.data.resizing import Resize, resize_image, resize_labels

import reference


def test_half_size_is_the_mean_of_four_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    mean = pixels.reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(pixels, (3, 4)) - mean).max() <= 0.5


def test_a_larger_image_is_bilinear() -> None:
    ramp = np.repeat(np.arange(0, 80, 10, dtype=np.uint8)[None, :, None], 4, axis=0)
    wide = resize_image(np.repeat(ramp, 3, axis=2), (8, 16))
    assert wide.shape == (8, 16, 3)
    steps = np.diff(wide[3, 1:-1, 0].astype(int))
    assert set(steps.tolist()) == {5}


def test_labels_of_half_size_take_one_of_four_and_nothing_new() -> None:
    labels = np.random.default_rng(0).choice([0, 7, 255], (6, 8)).astype(np.uint8)
    small = resize_labels(labels, (3, 4))
    assert np.array_equal(small, labels[1::2, 1::2])


def test_labels_twice_as_large_repeat_every_pixel() -> None:
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(resize_labels(labels, (4, 6)), labels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("size", [(5, 7), (13, 11), (1, 1)])
def test_odd_sizes_keep_image_and_labels_together(size: tuple[int, int]) -> None:
    labels = np.zeros((9, 9), dtype=np.uint8)
    labels[:, 5:] = 200
    image = np.repeat(labels[..., None], 3, axis=2)
    scaled, marked = resize_image(image, size), resize_labels(labels, size)
    assert scaled.shape == (*size, 3) and marked.shape == size
    assert (np.abs(scaled[..., 0].astype(int) - marked) <= 130).all()


def test_the_same_size_is_the_same_array() -> None:
    image, labels = np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8)
    assert resize_image(image, (3, 4)) is image
    assert resize_labels(labels, (3, 4)) is labels


def test_the_short_side_is_drawn_and_the_aspect_ratio_kept() -> None:
    resize = Resize(short_side=(10, 12))
    rng = np.random.default_rng(0)
    drawn = {resize.draw((20, 40), rng) for _ in range(50)}
    assert drawn == {(10.0, 20.0), (11.0, 22.0), (12.0, 24.0)}
    assert {resize.draw((40, 20), rng)[1] for _ in range(50)} == {10.0, 11.0, 12.0}


def test_a_fixed_size_does_not_depend_on_the_image() -> None:
    resize = Resize(size=(5, 6))
    assert resize.draw((100, 3), np.random.default_rng(0)) == (5.0, 6.0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, "expected either size or short_side, got size None and short_side None."),
        (
            {"size": (1, 2), "short_side": (1, 2)},
            "expected either size or short_side, got size (1, 2) and short_side (1, 2).",
        ),
        ({"size": (0, 2)}, "expected lengths of at least 1, got (0, 2)."),
        ({"short_side": (9, 8)}, "expected short_side as (low, high), got (9, 8)."),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, tuple[int, int]], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        Resize(**wrong)
    assert str(caught.value) == f"Resize: {sentence}"


def test_opencv_is_imported_only_where_it_is_used() -> None:
    """So that the demo, which scales nothing, runs without it."""
    users = set()
    for path in Path(reference.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and any(alias.name == "cv2" for alias in node.names):
                assert node.col_offset > 0, f"{path.name} imports OpenCV at its head"
                users.add(path.name)
    assert users >= {"resizing.py", "synthia.py", "colour.py"}
