"""Every broken file or folder is named in one sentence; nothing damaged is read as if whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.data.datasets import GTA5, Cityscapes
from tests.reference.small_sets import (
    SIZE,
    first_label,
    make_cityscapes,
    make_gta5,
    only,
    save_ids,
    save_image,
)


@pytest.fixture
def gta5(tmp_path: Path) -> Path:
    return make_gta5(tmp_path)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return make_cityscapes(tmp_path)


def test_gta5_names_the_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        GTA5(tmp_path)
    assert str(caught.value) == (
        f"GTA5: expected a folder {tmp_path / 'images'}, got none. "
        "Hint: the root must hold images/ and labels/."
    )


def test_gta5_names_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError) as caught:
        GTA5(tmp_path)
    assert str(caught.value) == f"GTA5: expected PNG files in {tmp_path / 'images'}, got none."


def test_gta5_names_missing_labels(gta5: Path) -> None:
    first_label(gta5).unlink()
    with pytest.raises(ValueError) as caught:
        GTA5(gta5)
    assert str(caught.value) == (
        "GTA5: expected labels for each of 2 images, got none for 1, the first "
        f"{first_label(gta5)}. Hint: unpack all label archives."
    )


def test_labels_saved_as_colours_are_named(gta5: Path) -> None:
    path = first_label(gta5)
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).labels(0)
    assert str(caught.value) == (
        f"GTA5.labels: expected {path} in Pillow mode P or L, got mode RGB. "
        "Hint: the file holds colours instead of class ids; use the file as downloaded."
    )


def test_labels_of_another_size_are_named(gta5: Path) -> None:
    path = save_ids(first_label(gta5), [7], palette=True, size=(4, 5))
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).labels(0)
    assert str(caught.value) == (
        f"GTA5.labels: expected {path} of size 6x4 as its image, got 5x4. "
        "Hint: image and labels are not of one frame."
    )


def test_unknown_ids_are_named_with_their_count(gta5: Path) -> None:
    path = save_ids(first_label(gta5), [7, 7, 35, 200], palette=True)
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).labels(0)
    assert str(caught.value) == (
        f"GTA5.labels: expected ids 0..34 in {path}, got 35 in 6 pixels. "
        "Hint: the file uses another numbering of classes."
    )


def test_an_empty_file_is_named(gta5: Path) -> None:
    path = first_label(gta5)
    path.write_bytes(b"")
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).labels(0)
    assert str(caught.value) == (
        f"GTA5.labels: expected a PNG file, got {path} with 0 bytes. "
        "Hint: unpack or download it again."
    )


def test_a_truncated_image_is_named(gta5: Path) -> None:
    path = gta5 / "images" / "00001.png"
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).image(0)
    sentence = str(caught.value)
    assert sentence.startswith(f"GTA5.image: expected a readable PNG file, got {path} (")
    assert sentence.endswith("). Hint: the file is damaged; unpack or download it again.")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_no_truncation_is_read_as_if_it_were_whole(gta5: Path, share: float) -> None:
    path = first_label(gta5)
    noise = np.random.default_rng(0).integers(0, 34, (40, 60), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole)) + 1])
    with pytest.raises(ValueError, match=r"^GTA5\.labels: expected a readable PNG file, got "):
        GTA5(gta5).labels(0)


def test_a_file_that_is_no_picture_is_named(gta5: Path) -> None:
    path = gta5 / "images" / "00001.png"
    path.write_text("<html>404</html>")
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).image(0)
    assert str(caught.value) == (
        f"GTA5.image: expected a readable PNG file, got {path} (cannot identify image file "
        f"{str(path)!r}). Hint: the file is damaged; unpack or download it again."
    )


def test_a_grey_image_is_named(gta5: Path) -> None:
    path = save_ids(gta5 / "images" / "00001.png", [7], palette=False)
    with pytest.raises(ValueError) as caught:
        GTA5(gta5).image(0)
    assert str(caught.value) == (
        f"GTA5.image: expected {path} in Pillow mode RGB, got mode L. "
        "Hint: save the image as 8-bit RGB."
    )


@pytest.mark.parametrize(
    ("kind", "strange", "expected"),
    [("labelIds", 34, "ids 0..33 or 255"), ("labelTrainIds", 19, "train ids 0..18 or 255")],
)
def test_cityscapes_names_unknown_ids(
    cityscapes: Path, kind: str, strange: int, expected: str
) -> None:
    old = only(cityscapes, "aachen*_labelIds.png")
    old.unlink()
    path = old.with_name(old.name.replace("labelIds", kind))
    save_ids(path, [0, 0, strange], palette=False)
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True).labels(0)
    assert str(caught.value) == (
        f"Cityscapes.labels: expected {expected} in {path}, got {strange} in 8 pixels. "
        "Hint: the file uses another numbering of classes."
    )


def test_cityscapes_colour_labels_are_named(cityscapes: Path) -> None:
    path = save_image(only(cityscapes, "aachen*_labelIds.png"))
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True).labels(0)
    assert str(caught.value) == (
        f"Cityscapes.labels: expected {path} in Pillow mode L, got mode RGB. "
        "Hint: the file holds colours instead of class ids; use the file as downloaded."
    )


def test_cityscapes_names_a_missing_split(cityscapes: Path) -> None:
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "test", labels=False)
    assert str(caught.value) == (
        f"Cityscapes: expected a folder {cityscapes / 'leftImg8bit' / 'test'}, got none. Hint: "
        "the root must hold leftImg8bit/<split>/<city>/ and, for labels, gtFine alike."
    )


def test_cityscapes_names_an_empty_split(cityscapes: Path) -> None:
    folder = cityscapes / "leftImg8bit" / "test"
    folder.mkdir()
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "test", labels=False)
    assert str(caught.value) == (
        f"Cityscapes: expected files <city>/*_leftImg8bit.png in {folder}, got none."
    )


def test_cityscapes_names_missing_labels(cityscapes: Path) -> None:
    path = only(cityscapes, "bonn*_labelIds.png")
    path.unlink()
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True)
    assert str(caught.value) == (
        f"Cityscapes: expected labels {path} (or _labelTrainIds.png), got none. "
        "Hint: unpack gtFine, or read without labels."
    )
