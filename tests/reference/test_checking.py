"""Checking a set: every broken file is found, named, explained, and nothing whole is accused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.data.checking import Report, check_set
from reference.data.gta5 import GTA5
from reference.data.index import stored_index
from tests.reference.small_sets import cut_short, first_label, make_gta5, save_ids, save_image

AGAIN = "unpack or download it again"
DOWNLOADED = "use the files as downloaded"


@pytest.fixture
def gta5(tmp_path: Path) -> Path:
    return make_gta5(tmp_path / "gta5")


def _check(root: Path, *, sample: int | None = None, workers: int = 0) -> Report:
    folder = root.parent / "index"
    return check_set("gta5", root, "train", sample=sample, workers=workers, index_folder=folder)


def _serious(report: Report) -> list[tuple[str, Path, str, str, str, str]]:
    return [
        (fault.kind, fault.path, fault.expected, fault.found, fault.cause, fault.fix)
        for fault in report.serious
    ]


def test_a_whole_set_has_no_serious_fault_and_gets_an_index(gta5: Path) -> None:
    report = _check(gta5)
    assert report.serious == ()
    assert (report.images, report.labels, report.expected, report.decoded) == (2, 2, 24966, 2)
    assert report.variant == "images/ and labels/"
    assert report.pixels is not None
    assert {i: n for i, n in enumerate(report.pixels) if n} == {0: 16, 13: 16}
    index = stored_index(GTA5(gta5), gta5.parent / "index")
    assert index is not None and report.index is not None and report.index.is_file()
    assert index.pixels.sum(axis=0).tolist() == list(report.pixels)
    assert index.sizes.tolist() == [[4, 6], [4, 6]]


def test_a_small_number_of_images_is_a_warning(gta5: Path) -> None:
    (fault,) = _check(gta5).faults
    assert not fault.serious
    assert fault.sentence("check_data") == (
        f"check_data: expected {gta5} to hold 24966 images, got 2. Hint: a part of the set is "
        "missing, or it is another set; go on if that is meant, else unpack all archives."
    )


def test_the_known_smaller_download_is_a_warning_that_says_so(
    gta5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference.data.gta5.GTA5_PAIRS", 27)
    (fault,) = _check(gta5).faults
    assert (fault.kind, fault.serious) == ("count", False)
    assert fault.cause == "a download in use that lacks 25 pairs"


def test_a_sample_gives_a_histogram_and_no_index(gta5: Path) -> None:
    report = _check(gta5, sample=1)
    assert report.decoded == 1 and report.index is None
    assert report.pixels is not None and sum(report.pixels) == 16
    assert not (gta5.parent / "index").exists()


def test_damage_beyond_the_header_is_found_where_it_is_decoded(gta5: Path) -> None:
    path = gta5 / "images" / "00002.png"
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    content[50] ^= 255
    path.write_bytes(content)
    assert _check(gta5, sample=1).serious == ()
    ((kind, where, _, found, cause, fix),) = _serious(_check(gta5))
    assert (kind, where, cause, fix) == ("unreadable", path, "the file is damaged", AGAIN)
    assert found.startswith("an error in decoding (")


def test_headers_of_all_files_are_read_whatever_the_sample(gta5: Path) -> None:
    empty = gta5 / "images" / "00002.png"
    empty.write_bytes(b"")
    cut = cut_short(first_label(gta5))
    report = _check(gta5, sample=1)
    assert _serious(report) == [
        (
            "truncated",
            cut,
            "to be a whole picture",
            "a file cut short",
            "copying, unpacking or downloading stopped half-way",
            AGAIN,
        ),
        (
            "empty",
            empty,
            "to be a picture",
            "0 bytes",
            "the file was not written to its end",
            AGAIN,
        ),
    ]
    assert report.decoded == 0 and report.pixels is None and report.index is None


def test_every_fault_of_a_set_is_found_not_only_the_first(gta5: Path) -> None:
    for number in (3, 4, 5, 6):
        save_image(gta5 / "images" / f"0000{number}.png")
        save_ids(gta5 / "labels" / f"0000{number}.png", [7], palette=True)
    (gta5 / "labels" / "00001.png").unlink()
    (gta5 / "images" / "00002.png").unlink()
    save_ids(gta5 / "labels" / "00003.png", [7], palette=True, size=(4, 5))
    save_image(gta5 / "labels" / "00004.png")
    save_ids(gta5 / "images" / "00005.png", [7], palette=False)
    save_ids(gta5 / "labels" / "00006.png", [99], palette=True)
    report = _check(gta5)
    assert _serious(report) == [
        (
            "missing",
            gta5 / "labels" / "00001.png",
            "to hold the labels of an image",
            "none",
            "a part of the download is missing",
            "unpack all label archives",
        ),
        (
            "size",
            gta5 / "labels" / "00003.png",
            "of size 6x4 as its image",
            "5x4",
            "image and labels are not of one frame",
            "unpack both again",
        ),
        (
            "mode",
            gta5 / "labels" / "00004.png",
            "to be 8-bit palette or grey",
            "8-bit RGB",
            "the file holds colours instead of class ids",
            DOWNLOADED,
        ),
        (
            "mode",
            gta5 / "images" / "00005.png",
            "to be 8-bit RGB",
            "8-bit grey",
            "another tool has changed the file",
            DOWNLOADED,
        ),
        (
            "ids",
            gta5 / "labels" / "00006.png",
            "to hold ids 0..34",
            "99 in 24 pixels",
            "the file uses another numbering of classes",
            "use the file as downloaded",
        ),
    ]
    extra = [fault for fault in report.faults if fault.kind == "extra"]
    assert [fault.sentence("check_data") for fault in extra] == [
        f"check_data: expected {gta5 / 'labels' / '00002.png'} to belong to an image, got none. "
        "Hint: a part of the images is missing; unpack all image archives."
    ]
    assert report.index is None


def test_workers_find_the_same(gta5: Path) -> None:
    for number in range(3, 12):
        save_image(gta5 / "images" / f"{number:05d}.png")
        save_ids(gta5 / "labels" / f"{number:05d}.png", [7], palette=True)
    first_label(gta5).write_bytes(b"")
    here, there = _check(gta5), _check(gta5, workers=1)
    assert here == there and here.decoded == 10


def test_a_missing_root_is_one_fault(tmp_path: Path) -> None:
    report = check_set("gta5", tmp_path / "none", "train")
    ((kind, path, expected, found, _, fix),) = _serious(report)
    assert (kind, path, expected, found) == (
        "missing",
        tmp_path / "none" / "images",
        "to be a folder",
        "none",
    )
    assert fix == "the root must hold images/ and labels/"
    assert (report.images, report.variant) == (0, "")


def test_a_file_that_cannot_be_opened_is_a_fault(gta5: Path) -> None:
    first_label(gta5).unlink()
    first_label(gta5).mkdir()
    ((kind, path, expected, found, cause, fix),) = _serious(_check(gta5))
    assert (kind, path, expected) == (
        "unreadable",
        first_label(gta5),
        "to be a readable picture",
    )
    assert (found, cause, fix) == (
        "an error in opening (Is a directory)",
        "rights or the disk",
        "check them",
    )
