"""The reader of GTA5: layouts, ids remapped on the fly, smaller downloads, every sentence."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.data.arrays import load_domain
from reference.data.gta5 import GTA5, GTA5_ABSENT, GTA5_PAIRS, list_gta5

from reference.data.classes import IGNORE
from tests.reference.small_sets import SIZE, first_label, make_gta5, save_ids, save_image


@pytest.fixture
def gta5(tmp_path: Path) -> Path:
    return make_gta5(tmp_path)


def test_images_are_read_and_palette_labels_remapped(gta5: Path) -> None:
    reader = GTA5(gta5)
    assert (len(reader), reader.stems, reader.has_labels) == (2, ("00001", "00002"), True)
    assert reader.image(1).shape == (*SIZE, 3)
    assert (reader.image(1) == 2).all()
    labels = reader.labels(0)
    assert labels.dtype == np.uint8
    assert labels[0].tolist() == [0, IGNORE, 13, 0, IGNORE, 13]


def test_the_double_folder_is_read(gta5: Path) -> None:
    assert list_gta5(gta5).variant == "images/ and labels/"
    for name in ("images", "labels"):
        (gta5 / name).rename(gta5 / "moved")
        (gta5 / name).mkdir()
        (gta5 / "moved").rename(gta5 / name / name)
    reader = GTA5(gta5)
    assert list_gta5(gta5).variant == "images/images/ and labels/labels/"
    assert reader.stems == ("00001", "00002")
    assert reader.labels(1)[0, 2] == 13


def test_labels_that_another_repository_converted_are_left_alone(gta5: Path) -> None:
    save_ids(gta5 / "labels" / "00001_labelTrainIds.png", [0], palette=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = GTA5(gta5)
    assert reader.label_files == tuple(gta5 / "labels" / f"0000{n}.png" for n in (1, 2))


def test_pairs_may_differ_in_size(gta5: Path) -> None:
    save_image(gta5 / "images" / "00003.png", size=(8, 10))
    save_ids(gta5 / "labels" / "00003.png", [23], palette=True, size=(8, 10))
    domain = load_domain(GTA5(gta5), SIZE)
    assert domain.images.shape == (3, 3, *SIZE)
    assert domain.labels is not None
    assert (domain.labels[2] == 10).all()


def test_an_alpha_channel_of_an_image_is_dropped(gta5: Path) -> None:
    path = gta5 / "images" / "00001.png"
    Image.open(path).convert("RGBA").save(path)
    assert GTA5(gta5).image(0).shape == (*SIZE, 3)
    assert (GTA5(gta5).image(0) == 1).all()


def test_an_incomplete_download_is_one_warning(gta5: Path) -> None:
    save_image(gta5 / "images" / f"{GTA5_PAIRS}.png")
    save_ids(gta5 / "labels" / f"{GTA5_PAIRS}.png", [7], palette=True)
    with pytest.warns(UserWarning) as caught:
        reader = GTA5(gta5)
    assert len(reader) == 3
    assert [str(warning.message) for warning in caught] == [
        f"GTA5: 3 pairs are read from {gta5}, which holds 3 label files; the complete set has "
        "24966 pairs."
    ]


def test_the_known_smaller_download_is_one_warning(
    gta5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(GTA5_ABSENT) == 25
    assert {"02154", "04637", "07117", "09688", "12050"} <= GTA5_ABSENT
    monkeypatch.setattr("reference.data.gta5.GTA5_PAIRS", 2 + len(GTA5_ABSENT))
    with pytest.warns(UserWarning) as caught:
        reader = GTA5(gta5)
    assert len(reader) == 2
    assert [str(warning.message) for warning in caught] == [
        f"GTA5: 2 pairs are read from {gta5}, a download in use that lacks 25 of 27 pairs."
    ]


def test_labels_without_images_are_one_warning(gta5: Path) -> None:
    (gta5 / "images" / "00002.png").unlink()
    with pytest.warns(UserWarning, match="1 pairs are read .* which holds 2 label files"):
        reader = GTA5(gta5)
    assert reader.stems == ("00001",)


def test_a_small_complete_set_gives_no_warning(gta5: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(GTA5(gta5)) == 2


def test_the_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        GTA5(tmp_path)
    assert str(caught.value) == (
        f"GTA5: expected {tmp_path / 'images'} to be a folder, got none. Hint: the root is "
        "another folder, or not all is unpacked; the root must hold images/ and labels/."
    )


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with pytest.raises(ValueError, match=r"images to be a folder, got a file\. Hint: "):
        GTA5(tmp_path)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(ValueError) as caught:
        GTA5(tmp_path)
    assert str(caught.value) == (
        f"GTA5: expected {tmp_path / 'images'} to hold PNG files, got none. Hint: the archives "
        "are not unpacked there; unpack them, keeping their folders."
    )


def test_missing_labels_are_named_and_counted(gta5: Path) -> None:
    first_label(gta5).unlink()
    with pytest.raises(ValueError) as caught:
        GTA5(gta5)
    assert str(caught.value) == (
        f"GTA5: expected {first_label(gta5)} to hold the labels of an image, got none; 1 of 2 "
        "images lack theirs. Hint: a part of the download is missing; unpack all label archives."
    )
