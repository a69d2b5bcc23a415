"""Picture files: whole and right, or refused in one sentence."""

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.data import files
from reference.data.classes import CITYSCAPES
from reference.data.image_set import reading_of
from reference.data.layouts import GTA5_IDS, SYNTHIA_IDS, TRAIN_IDS, Labels
from tests.reference.trees import cut_short, save_deep, save_image, save_values

GTA5 = reading_of(Labels("", GTA5_IDS), CITYSCAPES)
SYNTHIA = reading_of(Labels("", SYNTHIA_IDS, "deep"), CITYSCAPES)


def _ids(*values: int) -> np.ndarray:
    return np.resize(np.array(values, dtype=np.uint8), (4, 6))


def _refused(path: Path, wanted: str) -> None:
    with pytest.raises(files.DataError, match=wanted) as caught:
        files.read_image(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert str(path) in str(caught.value)
    assert "Hint: " in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "ä ö.png"])
def test_png_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    pixels = save_image(tmp_path / name)
    np.testing.assert_array_equal(files.read_image(tmp_path / name), pixels)
    assert files.picture_size(tmp_path / name) == pixels.shape[:2]


def test_alpha_is_dropped_and_grey_photographs_are_read(tmp_path: Path) -> None:
    pixels = save_image(tmp_path / "a.png")
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "b.png")
    np.testing.assert_array_equal(files.read_image(tmp_path / "b.png"), pixels)
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.jpg")
    assert files.read_image(tmp_path / "grey.jpg").shape == pixels.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_a_viewer_shows_them(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 255
    back = {3: 180, 6: 90, 8: 270}
    image = Image.fromarray(upright)
    if orientation in back:
        image = image.rotate(back[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    image.save(path, exif=exif, quality=100, subsampling=0)
    shown = files.read_image(path)
    assert shown.shape[:2] == files.picture_size(path)
    if orientation in back:
        assert np.abs(shown.astype(int) - upright).max() < 30


def test_a_grey_picture_of_16_bits_looks_as_it_does_in_a_viewer(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    shown = files.read_image(tmp_path / "a.png", any_mode=True)
    assert shown[0].tolist() == [[value] * 3 for value in (0, 0, 1, 128, 255)]


def test_files_of_any_name_are_found(tmp_path: Path) -> None:
    names = ("two words", "stra\u00dfe", "\u6f22", "two\nlines", "a.b")
    for name in names:
        save_image(tmp_path / f"{name}.png")
    found = files.find_files(tmp_path, "{path}", "", labels=False)
    assert sorted(key[0] for key in found) == sorted(names)


def test_damage_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_image(path, size=(40, 60))
    _refused(cut_short(path), "cut short")
    with pytest.raises(files.DataError, match="cut short"):
        files.check_ends(path)
    path.write_bytes(b"")
    _refused(path, "0 bytes")
    path.write_text("<html>404</html>")
    _refused(path, "neither PNG nor JPEG")
    path.unlink()
    _refused(path, "got none")
    save_values(path, _ids(7), mode="P")
    _refused(path, "Pillow mode P")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7])
def test_flipped_bytes_are_told(tmp_path: Path, place: float) -> None:
    path = tmp_path / "a.png"
    save_image(path, size=(40, 60))
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x55
    path.write_bytes(data)
    _refused(path, "error in decoding")


def test_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    _refused(tmp_path / "a.png", "pipe")
    assert files.find_files(tmp_path, "{stem}", "train", labels=False) != {}


def test_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 20000, 12000, 8, 2, 0, 0, 0)
    chunks = [head, b"IDAT" + zlib.compress(b""), b"IEND"]
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    _refused(path, "megapixels, got Image size")


def test_hidden_files_are_skipped_and_links_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save_image(root / "a" / "1.png")
    (root / "a" / "._1.png").write_bytes(b"\0\5\x16\7")
    (root / "a" / ".DS_Store").write_bytes(b"")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    save_image(tmp_path / "elsewhere" / "2.JPG")
    (tmp_path / "elsewhere" / "round").symlink_to(root)
    found = files.find_files(root, "{path}", "train", labels=False)
    assert list(found) == [("a/1",), ("b/2",)]


def test_no_link_leads_upwards(tmp_path: Path) -> None:
    """To a folder above the set, or above the one that a link has led to."""
    root, elsewhere = tmp_path / "home" / "set", tmp_path / "disk" / "set"
    for image in (root / "1.png", elsewhere / "2.png", root.parent / "3.png"):
        save_image(image)
    save_image(elsewhere.parent / "4.png")
    (root / "above").symlink_to(root.parent)
    (root / "disk").symlink_to(elsewhere)
    (elsewhere / "above").symlink_to(elsewhere.parent)
    (elsewhere / "back").symlink_to(root.parent)
    found = files.find_files(root, "{path}", "train", labels=False)
    assert list(found) == [("1",), ("disk/2",)]


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    save_image(tmp_path / "a.jpg")
    with pytest.raises(files.DataError, match="to be alone of its name"):
        files.find_files(tmp_path, "{stem}", "train", labels=False)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_ids_become_class_numbers(tmp_path: Path, mode: str) -> None:
    path = save_values(tmp_path / "a.png", _ids(7, 34, 26, 0), mode=mode)
    assert files.read_labels(path, GTA5)[0, :4].tolist() == [0, 255, 13, 255]


def test_other_numberings_are_refused(tmp_path: Path) -> None:
    path = save_values(tmp_path / "a.png", _ids(7, 35))
    with pytest.raises(files.DataError, match=r"to hold ids 0\.\.34, got 35 in 12 pixels"):
        files.read_labels(path, GTA5)
    with pytest.raises(files.DataError, match=r"ids 0\.\.18 or 255, got 35"):
        files.read_labels(path, reading_of(Labels("", TRAIN_IDS), CITYSCAPES))
    save_image(path)
    with pytest.raises(files.DataError, match="colours instead of class ids"):
        files.read_labels(path, GTA5)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_are_kept(tmp_path: Path, channels: int) -> None:
    path = save_deep(tmp_path / "a.png", _ids(3, 22, 1), channels)
    assert files.read_labels(path, SYNTHIA)[0, :3].tolist() == [0, 255, 10]


@pytest.mark.parametrize("size", [(4, 6), (16, 160)])
def test_sixteen_bits_that_were_cut_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save_deep(tmp_path / "a.png", np.resize(_ids(3, 22, 1), size))
    with Image.open(path) as cut:
        cut.convert("RGB").save(tmp_path / "b.png")
    with pytest.raises(files.DataError, match=r"16-bit RGB PNG, got 8-bit.*16 bits per channel"):
        files.read_labels(tmp_path / "b.png", SYNTHIA)
    with pytest.raises(files.DataError, match="SYNTHIA labels have 16 bits"):
        files.read_labels(save_deep(path, np.full((4, 6), 700)), SYNTHIA)
    with pytest.raises(files.DataError):
        files.read_labels(cut_short(save_deep(path, _ids(*range(22))), 0.8), SYNTHIA)


def test_colours_that_no_class_has_are_refused(tmp_path: Path) -> None:
    way = Labels("", {0x804080: "road", 0: ""}, "colours")
    reading = reading_of(way, CITYSCAPES)
    colours = np.zeros((4, 6, 3), dtype=np.uint8)
    colours[0] = 128, 64, 128
    path = save_values(tmp_path / "a.png", colours)
    assert files.read_labels(path, reading)[:, 0].tolist() == [0, 255, 255, 255]
    colours[1, 0] = 128, 64, 129
    save_values(path, colours)
    with pytest.raises(files.DataError, match=r"\(128, 64, 129\) in 1 pixels"):
        files.read_labels(path, reading)


@pytest.mark.parametrize("shape", [(100, 200), (106, 200), (101, 198), (200, 400), (201, 401)])
def test_labels_fit_their_image(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    fitted = shape if shape[0] >= 200 else (100, 200)
    assert files.fit_labels(tmp_path, labels, (100, 200)).shape == fitted


@pytest.mark.parametrize("shape", [(120, 200), (200, 100), (200, 200), (50, 100)])
def test_labels_of_another_frame_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(files.DataError, match="of size 200x100 as its image"):
        files.fit_labels(tmp_path, np.zeros(shape, dtype=np.uint8), (100, 200))


def test_scaling() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert files.resize_labels(labels, (2, 2)).tolist() == [[5, 7], [13, 15]]
    assert files.resize_labels(labels, (4, 4)) is labels
    np.testing.assert_array_equal(
        files.resize_labels(files.resize_labels(labels, (8, 8)), (4, 4)), labels
    )
    image = np.tile(np.array([0, 255], dtype=np.uint8), (4, 2))[..., None].repeat(3, -1)
    assert files.resize_image(image, (2, 2)).min() >= 127
    assert files.resize_image(image, (4, 4)) is image
