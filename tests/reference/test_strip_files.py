"""Panels as files: taken apart again they are what was drawn, and strange files are refused."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.data.classes import PALETTE
from reference.pictures.strip_files import StripFile, grey, read_strip, strip_png

RNG = np.random.default_rng(0)


def picture(height: int = 20, width: int = 40) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def strip(**pictures: np.ndarray) -> StripFile:
    return StripFile("target", 12, "aachen_000000", 400, "round 3", pictures)


def test_a_strip_is_read_back_as_it_was_drawn(tmp_path: Path):
    drawn = strip(image=picture(), prediction=picture(), labels=picture())
    path = tmp_path / drawn.place
    path.parent.mkdir()
    path.write_bytes(strip_png(drawn, [0, 1, 13]))
    found = read_strip(path)
    assert list(found.pictures) == ["image", "prediction", "labels"]
    for name, pixels in drawn.pictures.items():
        assert np.array_equal(found.pictures[name], pixels)
    assert (found.title, found.place) == (drawn.title, drawn.place)
    assert drawn.title == "target image 12 (aachen_000000), iteration 400, phase: round 3"
    assert drawn.place == Path("target-12/00000400.png")


def test_titles_and_the_colours_of_the_legend_are_on_it():
    white = np.full((20, 400, 3), 255, dtype=np.uint8)
    with_three = strip_png(strip(image=white), [0, 13, 11])
    pixels = np.array(Image.open(io.BytesIO(with_three)).convert("RGB"))
    below = pixels[-40:].reshape(-1, 3)
    for label in (0, 13, 11):
        assert (below == PALETTE[label]).all(axis=1).sum() > 50
    assert not (below == PALETTE[8]).all(axis=1).any()
    assert (pixels[:50] < 128).any()


def test_a_narrow_strip_wraps_its_legend_and_keeps_its_title():
    narrow = Image.open(io.BytesIO(strip_png(strip(image=picture(10, 10)), range(19))))
    wide = Image.open(io.BytesIO(strip_png(strip(image=picture(10, 2000)), range(19))))
    assert narrow.width > 300
    assert narrow.height > wide.height + 40


def test_grey_goes_from_black_to_white():
    assert grey(np.array([[0, 255]], dtype=np.uint8)).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("pictures", "found"),
    [({}, "none"), ({"a": picture(2, 3), "b": picture(3, 2)}, "[(2, 3, 3), (3, 2, 3)]")],
)
def test_pictures_must_be_there_and_of_one_size(pictures, found):
    sentence = f"strip_png: expected at least one picture, all of one size, got {found}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        strip_png(strip(**pictures), [0])


@pytest.mark.parametrize(
    ("content", "kind"), [(b"no picture", "UnidentifiedImageError"), (None, "KeyError")]
)
def test_another_file_is_refused(tmp_path: Path, content: bytes | None, kind: str):
    path = tmp_path / "a.png"
    if content is None:
        Image.fromarray(picture()).save(path)
    else:
        path.write_bytes(content)
    sentence = (
        f"read_strip: expected a panel of a run, got {path} ({kind}). "
        "Hint: remove the file; the run draws new ones."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_strip(path)
