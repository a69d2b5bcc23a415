"""Every layout, every way of labels: files are found, paired and read."""

import re
from pathlib import Path

import numpy as np
import pytest

from reference.data.classes import CITYSCAPES, IGNORE
from reference.data.files import DataError
from reference.data.image_set import ImageSet, converted_pattern, layout_of, open_set
from reference.data.layouts import LAYOUTS, TRAIN_IDS
from tests.reference.trees import fill, make, save_image, save_labels, save_values

WAYS = [(name, way) for name, layout in LAYOUTS.items() for way in range(len(layout.labels))]
VARIANTS = [(name, number) for name, each in LAYOUTS.items() for number in range(len(each.images))]


def _variant(name: str, way: int) -> int:
    """The pattern of images whose names in braces are those of the labels."""
    layout = layout_of(name, "target")
    names = [set(re.findall(r"{(\w+)}", pattern)) for pattern in layout.images]
    return names.index(set(re.findall(r"{(\w+)}", layout.labels[way].pattern)))


def _open(root: Path, name: str, split: str = "train", *, labels: bool = True) -> ImageSet:
    layout = layout_of(name, "target")
    return open_set(layout, root, split, CITYSCAPES, labels=labels, role="source")


@pytest.mark.parametrize(("name", "way"), WAYS)
def test_labels_are_read_as_the_table_says(tmp_path: Path, name: str, way: int) -> None:
    make(tmp_path, name, variant=_variant(name, way), way=way)
    images = _open(tmp_path, name)
    assert len(images) == 3
    values = list(layout_of(name, "target").labels[way].values.items())[:24]
    wanted = [CITYSCAPES.names.index(each) if each else IGNORE for _, each in values]
    expected = np.resize(np.array(wanted), (8, 12))
    np.testing.assert_array_equal(images.labels(1), expected)
    assert images.image(0).shape == (8, 12, 3)
    if layout_of(name, "target").holds is None:
        assert set(np.unique(expected)) - {IGNORE} <= set(images.labelled)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_images_alone_need_no_labels(tmp_path: Path, name: str, variant: int) -> None:
    make(tmp_path, name, labels=False, variant=variant, ending="JPG")
    images = _open(tmp_path, name, labels=False)
    assert len(set(images.stems)) == 3
    assert not images.has_labels
    assert all(sample.labels is None for sample in images.samples)
    with pytest.raises(ValueError, match="opened with labels"):
        images.labels(0)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_train_ids_beside_the_images_are_read_where_others_are_missing(tmp_path, name):
    layout = make(tmp_path, name, labels=False)
    split = layout.splits.get("train", "train")
    for number in range(3):
        path = tmp_path / f"{fill(converted_pattern(layout), split, number)}.png"
        save_values(path, np.full((8, 12), 13, dtype=np.uint8))
    assert (_open(tmp_path, name).labels(2) == 13).all()


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_validation_is_apart_from_training(tmp_path: Path, name: str) -> None:
    layout = make(tmp_path, name, splits=("train", "val"), count=10)
    train, val = (
        open_set(layout, tmp_path, split, CITYSCAPES, labels=True) for split in ("train", "val")
    )
    files = [{sample.image for sample in images.samples} for images in (train, val)]
    assert not files[0] & files[1]
    whole = "{split}" in layout.images[0]
    assert [len(train), len(val)] == ([10, 10] if whole else [8, 2])
    assert not any("belong to no image" in note for note in train.notes + val.notes)


def test_class_names_of_the_table_are_classes() -> None:
    for layout in LAYOUTS.values():
        for way in layout.labels:
            assert set(way.values.values()) <= {*CITYSCAPES.names, ""}
        assert set(layout.holds or ()) <= set(CITYSCAPES.names)


def test_label_ids_come_before_train_ids(tmp_path: Path) -> None:
    layout = make(tmp_path, "cityscapes")
    path = tmp_path / f"{fill(layout.labels[1].pattern, 'train', 0)}.png"
    save_labels(path, layout.labels[1], [18])
    assert _open(tmp_path, "cityscapes").labels(0)[0, 7] == 0


def test_converted_labels_of_other_repositories_do_not_matter(tmp_path: Path) -> None:
    make(tmp_path, "gta5")
    save_values(tmp_path / "labels" / "0000000_labelTrainIds.png", np.zeros((8, 12), np.uint8))
    images = _open(tmp_path, "gta5")
    assert images.labels(0)[0, 7] == 0
    assert images.labels(0)[0, 0] == IGNORE


def test_missing_and_extra_labels_are_named_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "gta5")
    (tmp_path / "images" / "0000001.png").unlink()
    extra, complete = _open(tmp_path, "gta5").notes
    assert "1 label files" in extra
    assert "2 images of train" in complete and "24966" in complete
    (tmp_path / "labels" / "0000002.png").unlink()
    with pytest.raises(DataError, match=r"0000002\.png to have labels, got none; 1 of 2 images"):
        _open(tmp_path, "gta5")


def test_an_empty_or_missing_root_says_what_to_unpack(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leftImg8bit/train/\*/\*_leftImg8bit\.png, got none"):
        _open(tmp_path, "cityscapes")
    with pytest.raises(DataError, match=r"got no such folder.*gtFine_trainvaltest\.zip"):
        _open(tmp_path / "nowhere", "cityscapes")
    (tmp_path / "RGB" / "Stereo_Left").mkdir(parents=True)
    with pytest.raises(DataError, match=r"got SYNTHIA-SEQS \(video sequences\)"):
        _open(tmp_path, "synthia")


@pytest.mark.parametrize("name", ["acdc", "toy"])
def test_day_images_are_partners_of_the_same_place(tmp_path: Path, name: str) -> None:
    layout = make(tmp_path, name, labels=False)
    assert _open(tmp_path, name, labels=False).partner(0) is None
    days = [tmp_path / f"{fill(layout.partner, 'train', n)}.png" for n in range(3)]
    day = [save_image(path, 70 + n) for n, path in enumerate(days)]
    images = _open(tmp_path, name, labels=False)
    assert images.has_partners
    for index, stem in enumerate(images.stems):
        np.testing.assert_array_equal(images.partner(index), day[int(stem)])


def test_an_unknown_layout_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"expected a layout of gta5, synthia.*own, got gta"):
        layout_of("gta", "source")
    assert TRAIN_IDS[18] == "bicycle"
