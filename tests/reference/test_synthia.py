"""The reader of SYNTHIA: 16 bits read right, every variant, and every way to get them wrong."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from reference.data.faults import DataError
from reference.data.synthia import Synthia, list_synthia

from tests.reference.small_sets import (
    SIZE,
    SYNTHIA_SAMPLE,
    SYNTHIA_TRAIN_IDS,
    cut_short,
    make_shallow_synthia,
    make_synthia,
    save_deep,
    save_ids,
    save_image,
)

_USE = "use the files of SYNTHIA-RAND-CITYSCAPES (CVPR16) as downloaded."


def _label(root: Path) -> Path:
    return root / "GT" / "LABELS" / "0000000.png"


def _sentence(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        Synthia(root).labels(0)
    return str(caught.value)


@pytest.mark.parametrize("channels", [3, 4])
def test_the_class_channel_of_16_bit_files_is_read(tmp_path: Path, channels: int) -> None:
    reader = Synthia(make_synthia(tmp_path, channels=channels))
    assert (len(reader), reader.stems, reader.has_labels) == (2, ("0000000", "0000001"), True)
    assert (reader.image(1) == 1).all()
    labels = reader.labels(0)
    assert labels.dtype == np.uint8
    assert labels[0].tolist() == SYNTHIA_TRAIN_IDS


def test_pillow_would_read_such_a_file_as_one_class(tmp_path: Path) -> None:
    make_synthia(tmp_path)
    with Image.open(_label(tmp_path)) as file:
        assert (np.asarray(file)[..., 0] == 0).all()


def test_the_level_around_both_folders_is_read(tmp_path: Path) -> None:
    make_synthia(tmp_path / "RAND_CITYSCAPES")
    reader = Synthia(tmp_path)
    assert reader.labels(1)[0].tolist() == SYNTHIA_TRAIN_IDS
    assert list_synthia(tmp_path).variant == (
        "RAND_CITYSCAPES/RGB/ and RAND_CITYSCAPES/GT/LABELS/ (16-bit)"
    )


@pytest.mark.parametrize(
    "folder",
    [
        "GT/synthia_mapped_to_cityscapes",
        "synthia_mapped_to_cityscapes",
        "GT/parsed_LABELS",
        "parsed_LABELS",
    ],
)
def test_8_bit_variants_are_known_by_their_names(tmp_path: Path, folder: str) -> None:
    reader = Synthia(make_shallow_synthia(tmp_path, folder))
    assert reader.labels(0)[0].tolist() == SYNTHIA_TRAIN_IDS
    assert list_synthia(tmp_path).variant == f"RGB/ and {folder}/ (8-bit)"


def test_files_as_downloaded_win_over_8_bit_ones(tmp_path: Path) -> None:
    make_shallow_synthia(make_synthia(tmp_path), "GT/parsed_LABELS")
    assert Synthia(tmp_path).label_files[0] == _label(tmp_path)


def test_labels_that_another_repository_converted_are_left_alone(tmp_path: Path) -> None:
    make_synthia(tmp_path)
    save_ids(tmp_path / "GT" / "LABELS" / "0000000_labelTrainIds.png", [0], palette=False)
    assert list_synthia(tmp_path).extra == ()


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: save_image(path), "8-bit RGB"),
        (lambda path: save_ids(path, [0, 1, 2], palette=False), "8-bit grey"),
        (lambda path: save_ids(path, [0, 1, 2], palette=True), "8-bit palette"),
    ],
)
def test_labels_cut_to_8_bits_are_named(tmp_path: Path, make, found: str) -> None:
    path = _label(make_synthia(tmp_path))
    make(path)
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} to be a 16-bit RGB PNG, got {found}. Hint: the file is "
        f"a picture of the labels, or a tool has cut its 16 bits to 8; {_USE}"
    )


_TRAP = (
    "Hint: SYNTHIA labels have 16 bits per channel, which most tools cut to 8 when they save; "
    f"{_USE}"
)


@pytest.mark.parametrize(
    ("ids", "found"), [([0], "only 0"), ([3, 0], "only 0, 3"), ([3, 976, 5], "ids up to 976")]
)
def test_the_trap_of_16_bits_is_named(tmp_path: Path, ids: list[int], found: str) -> None:
    path = save_deep(_label(make_synthia(tmp_path)), ids)
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} to hold at least 3 of the class ids 0..22, got {found}. "
        f"{_TRAP}"
    )


def test_a_picture_of_high_bytes_in_an_8_bit_folder_is_named(tmp_path: Path) -> None:
    make_shallow_synthia(tmp_path, "parsed_LABELS")
    path = save_ids(tmp_path / "parsed_LABELS" / "0000000.png", [0, 3], palette=False)
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} to hold at least 3 of the class ids 0..22, got only 0, "
        f"3. {_TRAP}"
    )


def test_train_ids_in_an_8_bit_folder_are_named(tmp_path: Path) -> None:
    make_shallow_synthia(tmp_path, "parsed_LABELS")
    path = save_ids(tmp_path / "parsed_LABELS" / "0000000.png", [0, 13, 255], palette=False)
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} to hold ids 0..22, got 255 in 8 pixels. "
        "Hint: the file uses another numbering of classes; use the file as downloaded."
    )


def test_colours_in_an_8_bit_folder_are_named(tmp_path: Path) -> None:
    make_shallow_synthia(tmp_path, "parsed_LABELS")
    path = save_image(tmp_path / "parsed_LABELS" / "0000000.png")
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} in Pillow mode L or P, got mode RGB. "
        "Hint: the file holds colours instead of class ids; use the file as downloaded."
    )


def test_labels_of_another_size_are_named(tmp_path: Path) -> None:
    path = save_deep(_label(make_synthia(tmp_path)), SYNTHIA_SAMPLE, size=(4, 5))
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} of size 6x4 as its image, got 5x4. "
        "Hint: image and labels are not of one frame; unpack both again."
    )


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_label_file_is_named(tmp_path: Path, share: float) -> None:
    path = cut_short(_label(make_synthia(tmp_path)), share)
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} to be a whole picture, got a file cut short. Hint: "
        "copying, unpacking or downloading stopped half-way; unpack or download it again."
    )


def test_a_damaged_label_file_is_named(tmp_path: Path) -> None:
    path = _label(make_synthia(tmp_path))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 255
    path.write_bytes(content)
    sentence = _sentence(tmp_path)
    assert sentence.startswith(
        f"Synthia.labels: expected {path} to be a readable picture, got an error in decoding ("
    )
    assert sentence.endswith("). Hint: the file is damaged; unpack or download it again.")


def test_what_opencv_cannot_decode_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _label(make_synthia(tmp_path))
    monkeypatch.setattr(cv2, "imdecode", lambda data, how: None)
    assert _sentence(tmp_path) == (
        f"Synthia.labels: expected {path} to be a readable picture, got an error in decoding "
        "(OpenCV decodes nothing). Hint: the file is damaged; unpack or download it again."
    )


def _refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        Synthia(root)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "product"),
    [
        ("RGB/Stereo_Left/Omni_B/000000.png", "SYNTHIA-SEQS (video sequences)"),
        (
            "SYNTHIA-SEQS-01-SUMMER/RGB/Stereo_Left/Omni_B/000000.png",
            "SYNTHIA-SEQS (video sequences)",
        ),
        ("RGBLeft/0000000.png", "SYNTHIA-SF"),
        ("RGB/ap_000_01.png", "another set, with images such as ap_000_01.png"),
        ("RGB/000001.png", "another set, with images such as 000001.png"),
    ],
)
def test_other_synthia_products_are_named(tmp_path: Path, file: str, product: str) -> None:
    save_image(tmp_path / file)
    assert _refused(tmp_path) == (
        f"Synthia: expected {tmp_path} to hold SYNTHIA-RAND-CITYSCAPES (CVPR16), got {product}. "
        "Hint: there are several SYNTHIA products; download SYNTHIA-RAND-CITYSCAPES (CVPR16), "
        "with images RGB/0000000.png and labels GT/LABELS/."
    )


_MUST = (
    "Hint: the root is another folder, or not all is unpacked; the root must hold RGB/ and "
    "GT/LABELS/, at once or inside RAND_CITYSCAPES/."
)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "RGB"
    assert _refused(tmp_path) == f"Synthia: expected {folder} to be a folder, got none. {_MUST}"
    save_image(folder / "0000000.png")
    folder = tmp_path / "GT" / "LABELS"
    assert _refused(tmp_path) == f"Synthia: expected {folder} to be a folder, got none. {_MUST}"


def test_empty_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "RGB").mkdir()
    hint = (
        "to hold PNG files, got none. Hint: the archives are not unpacked there; unpack them, "
        "keeping their folders."
    )
    assert _refused(tmp_path) == f"Synthia: expected {tmp_path / 'RGB'} {hint}"
    save_image(tmp_path / "RGB" / "0000000.png")
    (tmp_path / "GT" / "LABELS").mkdir(parents=True)
    assert _refused(tmp_path) == f"Synthia: expected {tmp_path / 'GT' / 'LABELS'} {hint}"


def test_missing_labels_are_named(tmp_path: Path) -> None:
    path = _label(make_synthia(tmp_path))
    path.unlink()
    assert _refused(tmp_path) == (
        f"Synthia: expected {path} to hold the labels of an image, got none; 1 of 2 images lack "
        "theirs. Hint: a part of the download is missing; unpack all label archives."
    )


def test_sizes_follow_the_files(tmp_path: Path) -> None:
    assert Synthia(make_synthia(tmp_path)).image(0).shape == (*SIZE, 3)
