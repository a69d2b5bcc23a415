"""Checking SYNTHIA, Cityscapes and prepared copies: what is particular to each of them."""

from pathlib import Path

import pytest

from reference.data.checking import Report, check_set
from reference.prepare import Options, prepare
from tests.reference.small_sets import (
    make_cityscapes,
    make_gta5,
    make_shallow_synthia,
    make_synthia,
    only,
    save_deep,
    save_ids,
    save_image,
)


@pytest.fixture
def synthia(tmp_path: Path) -> Path:
    return make_synthia(tmp_path / "synthia")


def _synthia(root: Path, *, sample: int | None = None) -> Report:
    folder = root.parent / "index"
    return check_set("synthia", root, "train", sample=sample, index_folder=folder)


def _serious(report: Report) -> list[tuple[str, Path, str, str, str, str]]:
    return [
        (fault.kind, fault.path, fault.expected, fault.found, fault.cause, fault.fix)
        for fault in report.serious
    ]


def test_synthia_as_downloaded_and_in_8_bits(synthia: Path, tmp_path: Path) -> None:
    report = _synthia(synthia)
    assert report.serious == ()
    assert (report.variant, report.expected) == ("RGB/ and GT/LABELS/ (16-bit)", 9400)
    shallow = make_shallow_synthia(tmp_path / "shallow", "parsed_LABELS")
    report = _synthia(shallow)
    assert report.serious == ()
    assert report.variant == "RGB/ and parsed_LABELS/ (8-bit)"


def test_synthia_labels_cut_to_8_bits_are_found_from_their_headers(synthia: Path) -> None:
    path = save_ids(synthia / "GT" / "LABELS" / "0000001.png", [1, 2, 3], palette=False)
    assert _serious(_synthia(synthia, sample=1)) == [
        (
            "bit depth",
            path,
            "to be 16-bit RGB or RGB and alpha",
            "8-bit grey",
            "the file is a picture of the labels, or a tool has cut its 16 bits to 8",
            "use the files as downloaded",
        )
    ]


def test_16_bit_files_of_one_class_are_found_when_decoded(synthia: Path) -> None:
    path = save_deep(synthia / "GT" / "LABELS" / "0000001.png", [0])
    ((kind, where, _, found, cause, _),) = _serious(_synthia(synthia))
    assert (kind, where, found) == ("ids", path, "only 0")
    assert (
        cause == "SYNTHIA labels have 16 bits per channel, which most tools cut to 8 when they save"
    )


def test_another_synthia_product_is_one_fault(tmp_path: Path) -> None:
    save_image(tmp_path / "RGB" / "Stereo_Left" / "Omni_B" / "000000.png")
    ((kind, path, expected, found, _, _),) = _serious(_synthia(tmp_path))
    assert (kind, path) == ("product", tmp_path)
    assert expected == "to hold SYNTHIA-RAND-CITYSCAPES (CVPR16)"
    assert found == "SYNTHIA-SEQS (video sequences)"


def test_a_prepared_copy_is_not_taken_for_the_original(tmp_path: Path) -> None:
    prepare(
        Options(gta5=make_gta5(tmp_path / "gta5"), out=tmp_path / "half", workers=0), progress=False
    )
    copy = tmp_path / "half" / "gta5"
    (fault,) = check_set("gta5", copy, "train").serious
    assert fault.sentence("check_data") == (
        f"check_data: expected {copy} to hold the set as downloaded, got a copy that "
        "reference.prepare made. Hint: copies are complete or refused by their reader; check the "
        "original."
    )


def test_cityscapes_train_labels_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    only(root, "ulm*_labelIds.png").write_bytes(b"")
    left = check_set("cityscapes", root, "train", labels=False, sample=None)
    assert (left.labels, left.serious, left.pixels, left.index) == (None, (), None, None)
    assert (left.images, left.expected, left.decoded) == (1, 2975, 1)
    asked = check_set("cityscapes", root, "train", labels=True, sample=None)
    assert [fault.kind for fault in asked.serious] == ["empty"]


def test_colour_labels_of_cityscapes_are_found(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    path = save_image(only(root, "bonn*_labelIds.png"))
    report = check_set("cityscapes", root, "val", sample=1, index_folder=tmp_path / "index")
    assert [(fault.kind, fault.path, fault.found) for fault in report.serious] == [
        ("mode", path, "8-bit RGB")
    ]
