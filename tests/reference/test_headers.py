"""Headers: size, bit depth and colours of every kind of file, without decoding it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.data.headers import read_header

from tests.reference.small_sets import cut_short, save_deep, save_ids, save_image


@pytest.mark.parametrize(("channels", "words"), [(3, "16-bit RGB"), (4, "16-bit RGB and alpha")])
def test_deep_files_are_told_from_pillow_s_view_of_them(
    tmp_path: Path, channels: int, words: str
) -> None:
    path = save_deep(tmp_path / "deep.png", [1, 2, 3], channels=channels)
    with Image.open(path) as file:
        assert file.mode in ("RGB", "RGBA")
    header = read_header("here", path)
    assert (header.size, str(header)) == ((4, 6), words)


def test_kinds_of_8_bit_files(tmp_path: Path) -> None:
    palette = save_ids(tmp_path / "palette.png", [1], palette=True, size=(5, 3))
    grey = save_ids(tmp_path / "grey.png", [1], palette=False)
    colour = save_image(tmp_path / "colour.png")
    assert str(read_header("here", palette)) == "8-bit palette"
    assert read_header("here", palette).size == (5, 3)
    assert str(read_header("here", grey)) == "8-bit grey"
    assert str(read_header("here", colour)) == "8-bit RGB"


def test_a_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.zeros((5, 7, 3), dtype=np.uint8)).save(path)
    assert read_header("here", path).size == (5, 7)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path) -> None:
    path = save_image(tmp_path / "longer.png")
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_header("here", path).size == (4, 6)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_a_file_without_its_end_is_refused(tmp_path: Path, share: float) -> None:
    path = cut_short(save_image(tmp_path / "short.png"), share)
    with pytest.raises(ValueError) as caught:
        read_header("here", path)
    assert str(caught.value) == (
        f"here: expected {path} to be a whole picture, got a file cut short. Hint: copying, "
        "unpacking or downloading stopped half-way; unpack or download it again."
    )
