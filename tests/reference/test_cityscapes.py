"""The reader of Cityscapes: layout, both numberings, target labels never opened."""

import builtins
import io
import os
from pathlib import Path

import pytest
from reference.data.arrays import load_domain
from reference.data.cityscapes import Cityscapes, list_cityscapes

from reference.data.classes import IGNORE
from tests.reference.small_sets import SIZE, make_cityscapes, only, save_ids, save_image


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return make_cityscapes(tmp_path)


def test_split_and_cities_are_read(cityscapes: Path) -> None:
    reader = Cityscapes(cityscapes, "val", labels=True)
    assert reader.stems == ("aachen_000000_000019", "bonn_000000_000019")
    assert len(reader) == 2 and reader.has_labels
    assert reader.image(0).shape == (*SIZE, 3)
    assert reader.labels(0)[0].tolist() == [0, IGNORE, 18, IGNORE, 0, IGNORE]


def _as_train_ids(path: Path) -> Path:
    return path.with_name(path.name.replace("labelIds", "labelTrainIds"))


def test_train_ids_are_read_where_only_they_exist(cityscapes: Path) -> None:
    path = only(cityscapes, "aachen*_labelIds.png")
    path.unlink()
    save_ids(_as_train_ids(path), [0, 18, 255], palette=False)
    labels = Cityscapes(cityscapes, "val", labels=True).labels(0)
    assert labels[0].tolist() == [0, 18, IGNORE, 0, 18, IGNORE]
    listing = list_cityscapes(cityscapes, "val", labels=True)
    assert listing.variant == "labels as labelIds and labelTrainIds"


def test_ids_as_downloaded_win_over_converted_ones(cityscapes: Path) -> None:
    path = only(cityscapes, "aachen*_labelIds.png")
    save_ids(_as_train_ids(path), [5], palette=False)
    assert Cityscapes(cityscapes, "val", labels=True).label_files[0] == path


def test_without_labels_gtfine_may_be_absent_and_asking_is_refused(cityscapes: Path) -> None:
    (cityscapes / "gtFine").rename(cityscapes / "elsewhere")
    reader = Cityscapes(cityscapes, "train", labels=False)
    assert not reader.has_labels
    assert load_domain(reader, SIZE).labels is None
    with pytest.raises(ValueError) as caught:
        reader.labels(0)
    assert str(caught.value) == (
        "Cityscapes.labels: expected a reader made with labels=True, got labels=False."
    )


def test_without_labels_nothing_below_gtfine_is_touched(
    cityscapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guarded(plain):  # type: ignore[no-untyped-def]
        def call(path, *args, **kwargs):  # type: ignore[no-untyped-def]
            if "gtFine" in str(path):
                raise AssertionError(f"touched {path}")
            return plain(path, *args, **kwargs)

        return call

    for module, name in ((builtins, "open"), (io, "open"), (os, "stat"), (os, "scandir")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    monkeypatch.setattr(os, "listdir", guarded(os.listdir))
    with pytest.raises(AssertionError, match="touched"):
        Cityscapes(cityscapes, "train", labels=True).labels(0)
    domain = load_domain(Cityscapes(cityscapes, "train", labels=False), SIZE)
    assert domain.stems == ("ulm_000000_000019",)
    assert domain.labels is None


def test_a_reader_without_labels_holds_no_path_to_them(cityscapes: Path) -> None:
    held = repr(vars(Cityscapes(cityscapes, "train", labels=False)))
    assert "leftImg8bit" in held
    assert "gtFine" not in held


@pytest.mark.parametrize(
    ("kind", "strange", "expected"),
    [("labelIds", 34, "ids 0..33 or 255"), ("labelTrainIds", 19, "train ids 0..18 or 255")],
)
def test_unknown_ids_are_named(cityscapes: Path, kind: str, strange: int, expected: str) -> None:
    old = only(cityscapes, "aachen*_labelIds.png")
    old.unlink()
    path = old.with_name(old.name.replace("labelIds", kind))
    save_ids(path, [0, 0, strange], palette=False)
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True).labels(0)
    assert str(caught.value) == (
        f"Cityscapes.labels: expected {path} to hold {expected}, got {strange} in 8 pixels. "
        "Hint: the file uses another numbering of classes; use the file as downloaded."
    )


def test_colour_labels_are_named(cityscapes: Path) -> None:
    path = save_image(only(cityscapes, "aachen*_labelIds.png"))
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True).labels(0)
    assert str(caught.value) == (
        f"Cityscapes.labels: expected {path} in Pillow mode L, got mode RGB. "
        "Hint: the file holds colours instead of class ids; use the file as downloaded."
    )


_MUST = (
    "Hint: the root is another folder, or not all is unpacked; the root must hold "
    "leftImg8bit/<split>/<city>/ and, for labels, gtFine alike."
)


def test_a_missing_split_is_named(cityscapes: Path) -> None:
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "test", labels=False)
    folder = cityscapes / "leftImg8bit" / "test"
    assert str(caught.value) == f"Cityscapes: expected {folder} to be a folder, got none. {_MUST}"


def test_missing_labels_of_a_split_are_named(cityscapes: Path) -> None:
    (cityscapes / "gtFine" / "val").rename(cityscapes / "elsewhere")
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True)
    folder = cityscapes / "gtFine" / "val"
    assert str(caught.value) == f"Cityscapes: expected {folder} to be a folder, got none. {_MUST}"


def test_an_empty_split_is_named(cityscapes: Path) -> None:
    folder = cityscapes / "leftImg8bit" / "test"
    folder.mkdir()
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "test", labels=False)
    assert str(caught.value) == (
        f"Cityscapes: expected {folder} to hold files <city>/*_leftImg8bit.png, got none. Hint: "
        "the archives are not unpacked there; unpack them, keeping their folders."
    )


def test_missing_labels_are_named(cityscapes: Path) -> None:
    path = only(cityscapes, "bonn*_labelIds.png")
    path.unlink()
    with pytest.raises(ValueError) as caught:
        Cityscapes(cityscapes, "val", labels=True)
    assert str(caught.value) == (
        f"Cityscapes: expected {path} to hold the labels of an image, got none; 1 of 2 images "
        "lack theirs. Hint: a part of the download is missing; unpack gtFine, or read without "
        "labels."
    )
