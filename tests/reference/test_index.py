"""The index of a set: counts are right, kept, found again, and never taken for another set's."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from reference.data.cityscapes import Cityscapes
from reference.data.gta5 import GTA5
from reference.data.index import index_of, index_path, stored_index

from tests.reference.small_sets import first_label, make_cityscapes, make_gta5, save_ids, save_image


@pytest.fixture
def gta5(tmp_path: Path) -> Path:
    return make_gta5(tmp_path / "gta5")


def test_pixels_of_every_class_are_counted(gta5: Path, tmp_path: Path) -> None:
    save_ids(first_label(gta5), [7, 7, 23], palette=True)
    index = index_of(GTA5(gta5), tmp_path)
    assert index.stems == ("00001", "00002")
    assert index.sizes.tolist() == [[4, 6], [4, 6]]
    assert index.pixels.shape == (2, 19)
    assert {i: n for i, n in enumerate(index.pixels[0].tolist()) if n} == {0: 16, 10: 8}
    assert {i: n for i, n in enumerate(index.pixels[1].tolist()) if n} == {0: 8, 13: 8}


def test_the_kept_index_is_read_instead_of_the_labels(gta5: Path, tmp_path: Path) -> None:
    reader = GTA5(gta5)
    assert stored_index(reader, tmp_path) is None
    first = index_of(reader, tmp_path)
    # With the same size and time of change, an empty file is not noticed, because it is not read.
    state = first_label(gta5).stat()
    first_label(gta5).write_bytes(b"\0" * state.st_size)
    os.utime(first_label(gta5), ns=(state.st_atime_ns, state.st_mtime_ns))
    again = index_of(reader, tmp_path)
    assert again.stems == first.stems
    assert np.array_equal(again.pixels, first.pixels)
    assert np.array_equal(again.sizes, first.sizes)


def test_a_changed_label_file_asks_for_a_new_index(gta5: Path, tmp_path: Path) -> None:
    index_of(GTA5(gta5), tmp_path)
    path = save_ids(first_label(gta5), [23], palette=True)
    os.utime(path, ns=(0, 0))
    assert stored_index(GTA5(gta5), tmp_path) is None
    assert index_of(GTA5(gta5), tmp_path).pixels[0, 10] == 24


def test_another_pair_asks_for_a_new_index(gta5: Path, tmp_path: Path) -> None:
    index_of(GTA5(gta5), tmp_path)
    save_image(gta5 / "images" / "00003.png")
    save_ids(gta5 / "labels" / "00003.png", [7], palette=True)
    assert stored_index(GTA5(gta5), tmp_path) is None


def test_two_roots_never_share_an_index(gta5: Path, tmp_path: Path) -> None:
    other = make_gta5(tmp_path / "other")
    for path in (gta5 / "labels").iterdir():
        for root in (gta5, other):
            os.utime(root / "labels" / path.name, ns=(0, 0))
    assert index_path(GTA5(gta5), tmp_path) != index_path(GTA5(other), tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"stems": [], "sizes": [], "pixels": []}'])
def test_a_damaged_index_is_counted_again(gta5: Path, tmp_path: Path, content: str) -> None:
    reader = GTA5(gta5)
    index_of(reader, tmp_path)
    index_path(reader, tmp_path).write_text(content)
    assert stored_index(reader, tmp_path) is None
    assert index_of(reader, tmp_path).pixels.sum() == 32


def test_the_file_says_what_it_is_about(gta5: Path, tmp_path: Path) -> None:
    reader = GTA5(gta5)
    index_of(reader, tmp_path)
    path = index_path(reader, tmp_path)
    assert path.name.startswith("gta5-")
    stored = json.loads(path.read_text())
    assert (stored["root"], stored["count"]) == (str(gta5.resolve()), 2)


def test_a_reader_without_labels_is_refused(tmp_path: Path) -> None:
    reader = Cityscapes(make_cityscapes(tmp_path), "train", labels=False)
    with pytest.raises(ValueError) as caught:
        index_of(reader, tmp_path)
    assert str(caught.value) == (
        "index_path: expected a reader with labels, got Cityscapes without."
    )


def test_a_broken_label_file_leaves_no_index(gta5: Path, tmp_path: Path) -> None:
    (gta5 / "labels" / "00002.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00002\.png to be a picture, got 0 bytes"):
        index_of(GTA5(gta5), tmp_path / "index")
    assert not (tmp_path / "index").exists()
