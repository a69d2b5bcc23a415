"""Every broken picture is named in one sentence; nothing damaged is read as if it were whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.data.faults import DataError
from reference.data.gta5 import GTA5

from tests.reference.small_sets import (
    SIZE,
    cut_short,
    first_label,
    make_gta5,
    save_ids,
    save_image,
)


@pytest.fixture
def gta5(tmp_path: Path) -> Path:
    return make_gta5(tmp_path)


def _labels_sentence(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        GTA5(root).labels(0)
    return str(caught.value)


def _image_sentence(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        GTA5(root).image(0)
    return str(caught.value)


def test_the_error_holds_its_fault_in_fields(gta5: Path) -> None:
    path = first_label(gta5)
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        GTA5(gta5).labels(0)
    fault = caught.value.fault
    assert fault is not None
    assert (fault.kind, fault.path, fault.found, fault.serious) == ("empty", path, "0 bytes", True)
    assert str(caught.value) == fault.sentence("GTA5.labels")


def test_labels_saved_as_colours(gta5: Path) -> None:
    path = first_label(gta5)
    Image.open(path).convert("RGB").save(path)
    assert _labels_sentence(gta5) == (
        f"GTA5.labels: expected {path} in Pillow mode P or L, got mode RGB. "
        "Hint: the file holds colours instead of class ids; use the file as downloaded."
    )


def test_labels_saved_as_jpeg(gta5: Path) -> None:
    path = first_label(gta5)
    Image.open(path).convert("RGB").save(path, format="JPEG")
    assert _labels_sentence(gta5) == (
        f"GTA5.labels: expected {path} in Pillow mode P or L, got mode RGB. "
        "Hint: the file holds colours instead of class ids; use the file as downloaded."
    )


def test_labels_of_another_size(gta5: Path) -> None:
    path = save_ids(first_label(gta5), [7], palette=True, size=(4, 5))
    assert _labels_sentence(gta5) == (
        f"GTA5.labels: expected {path} of size 6x4 as its image, got 5x4. "
        "Hint: image and labels are not of one frame; unpack both again."
    )


def test_unknown_ids_are_counted(gta5: Path) -> None:
    path = save_ids(first_label(gta5), [7, 7, 35, 200], palette=True)
    assert _labels_sentence(gta5) == (
        f"GTA5.labels: expected {path} to hold ids 0..34, got 35 in 6 pixels. "
        "Hint: the file uses another numbering of classes; use the file as downloaded."
    )


def test_an_empty_file(gta5: Path) -> None:
    path = first_label(gta5)
    path.write_bytes(b"")
    assert _labels_sentence(gta5) == (
        f"GTA5.labels: expected {path} to be a picture, got 0 bytes. "
        "Hint: the file was not written to its end; unpack or download it again."
    )


def test_a_file_that_vanished_after_the_folder_was_read(gta5: Path) -> None:
    reader, path = GTA5(gta5), gta5 / "images" / "00001.png"
    path.unlink()
    with pytest.raises(ValueError) as caught:
        reader.image(0)
    assert str(caught.value) == (
        f"GTA5.image: expected {path} to be a picture, got none. "
        "Hint: it was moved or removed since the folder was read; put it back."
    )


def _truncated(caller: str, path: Path) -> str:
    return (
        f"{caller}: expected {path} to be a whole picture, got a file cut short. Hint: copying, "
        "unpacking or downloading stopped half-way; unpack or download it again."
    )


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_no_truncation_is_read_as_if_it_were_whole(gta5: Path, share: float) -> None:
    path = first_label(gta5)
    noise = np.random.default_rng(0).integers(0, 34, (40, 60), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    cut_short(path, share)
    assert _labels_sentence(gta5) == _truncated("GTA5.labels", path)


def test_a_truncated_jpeg(gta5: Path) -> None:
    path = gta5 / "images" / "00001.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    cut_short(path)
    assert _image_sentence(gta5) == _truncated("GTA5.image", path)


def test_a_damaged_image_with_its_end_in_place(gta5: Path) -> None:
    path = gta5 / "images" / "00001.png"
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    content[50] ^= 255
    path.write_bytes(content)
    sentence = _image_sentence(gta5)
    assert sentence.startswith(
        f"GTA5.image: expected {path} to be a readable picture, got an error in decoding ("
    )
    assert sentence.endswith("). Hint: the file is damaged; unpack or download it again.")


def test_a_file_that_is_no_picture(gta5: Path) -> None:
    path = gta5 / "images" / "00001.png"
    path.write_text("<html>404</html>")
    assert _image_sentence(gta5) == (
        f"GTA5.image: expected {path} to be a readable picture, got a file that is neither PNG "
        "nor JPEG. Hint: the file is damaged; unpack or download it again."
    )


def test_a_grey_image(gta5: Path) -> None:
    path = save_ids(gta5 / "images" / "00001.png", [7], palette=False)
    assert _image_sentence(gta5) == (
        f"GTA5.image: expected {path} in Pillow mode RGB or RGBA, got mode L. "
        "Hint: another tool has changed the file; use the file as downloaded."
    )


def test_an_image_cut_short_is_named_when_its_labels_are_compared(gta5: Path) -> None:
    path = cut_short(save_image(gta5 / "images" / "00001.png", size=(40, 60)))
    assert _labels_sentence(gta5) == _truncated("GTA5.labels", path)
