"""Opening a set by its name: downloaded or prepared, and never one set in the place of another."""

from pathlib import Path

import pytest

from reference.data.cityscapes import Cityscapes
from reference.data.gta5 import GTA5
from reference.data.sets import SET_NAMES, open_set
from reference.data.synthia import Synthia
from reference.prepare import Options, prepare
from tests.reference.small_sets import make_cityscapes, make_gta5, make_synthia


def test_downloaded_sets_are_opened_by_their_names(tmp_path: Path) -> None:
    assert SET_NAMES == ("gta5", "synthia", "cityscapes")
    assert isinstance(open_set("gta5", make_gta5(tmp_path / "a")), GTA5)
    assert isinstance(open_set("synthia", str(make_synthia(tmp_path / "b"))), Synthia)
    root = make_cityscapes(tmp_path / "c")
    reader = open_set("cityscapes", root, "val")
    assert isinstance(reader, Cityscapes) and reader.has_labels and reader.split == "val"
    assert not open_set("cityscapes", root, "train", labels=False).has_labels


def test_a_copy_of_another_set_is_refused(tmp_path: Path) -> None:
    root = make_gta5(tmp_path / "gta5")
    prepare(Options(gta5=root, out=tmp_path / "half", workers=0), progress=False)
    with pytest.raises(ValueError) as caught:
        open_set("synthia", tmp_path / "half" / "gta5")
    assert str(caught.value) == (
        f"open_set: expected {tmp_path / 'half' / 'gta5'} to hold synthia, got a copy of gta5."
    )


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        open_set("kitti", tmp_path)  # type: ignore[arg-type]
    assert str(caught.value) == ("open_set: expected one of gta5, synthia, cityscapes, got kitti.")


@pytest.mark.parametrize(
    ("split", "labels", "found"),
    [("val", True, "val with labels=True"), ("train", False, "train with labels=False")],
)
def test_what_a_source_does_not_have_is_refused(
    tmp_path: Path, split: str, labels: bool, found: str
) -> None:
    with pytest.raises(ValueError) as caught:
        open_set("gta5", make_gta5(tmp_path), split, labels=labels)
    assert str(caught.value) == (
        f"open_set: expected split train with labels of gta5, got {found}."
    )
