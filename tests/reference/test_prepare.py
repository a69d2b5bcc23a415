"""A smaller copy in the same layout, read as the original is; never over anything else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference.data.sets import Sets
from reference.data.settings import DataSettings
from reference.prepare import Options, prepare
from tests.reference.killed import killed
from tests.reference.trees import cut_short, fill, make, save_image


def _prepare(root: Path, *names: str, **changes: Any) -> list[str]:
    words = tuple(word for name in names for word in (name, str(root / name)))
    options = {"sets": words, "out": root / "half", "workers": 0, **changes}
    return prepare(Options(**options))


@pytest.mark.parametrize(
    ("source", "target"),
    [("gta5", "cityscapes"), ("synthia", "acdc"), ("mapillary", "bdd100k"), ("carla", "camvid")],
)
def test_copies_are_read_as_their_originals(tmp_path: Path, source: str, target: str) -> None:
    make(tmp_path / source, source)
    make(tmp_path / target, target, splits=("train", "val"))
    _prepare(tmp_path, source, target)
    names = {"source_set": source, "target_set": target}
    first, again = (
        Sets(DataSettings(root=root, **names)) for root in (tmp_path, tmp_path / "half")
    )
    assert again.source.stems == first.source.stems
    assert again.source.image(0).shape == (4, 6, 3)
    assert again.source.labels(0).shape == (4, 6)
    np.testing.assert_array_equal(again.validation.labels(1), first.validation.labels(1))
    assert again.validation.image(0).shape == (4, 6, 3)
    assert again.target.stems == first.target.stems


def test_labels_of_training_targets_are_copied_only_when_asked(tmp_path: Path) -> None:
    make(tmp_path / "cityscapes", "cityscapes", splits=("train", "val"))
    _prepare(tmp_path, "cityscapes")
    assert not (tmp_path / "half" / "cityscapes" / "gtFine" / "train").exists()
    _prepare(tmp_path, "cityscapes", labels=True)
    assert Sets(DataSettings(root=tmp_path / "half")).oracle.labels(0).shape == (4, 6)


def test_a_stopped_copy_goes_on(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    assert _prepare(tmp_path, "gta5") == ["GTA5 train: 3 pairs, 6 files"]
    copy = tmp_path / "half" / "gta5"
    (copy / "images" / "0000001.jpg").unlink()
    kept = (copy / "images" / "0000002.jpg").stat().st_mtime_ns
    assert _prepare(tmp_path, "gta5") == ["GTA5 train: 3 pairs, 2 files"]
    assert (copy / "images" / "0000002.jpg").stat().st_mtime_ns == kept


def test_a_copy_that_is_killed_at_any_operation_on_a_file_goes_on(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5", count=1)
    options = Options(sets=("gta5", str(tmp_path / "gta5")), workers=0)
    for out in killed(tmp_path, lambda folder: prepare(replace(options, out=folder)), least=12):
        prepare(replace(options, out=out))
        held = {path.name for path in out.rglob("*") if path.is_file()}
        assert held == {"prepared.json", "0000000.jpg", "0000000_labelTrainIds.png"}


def test_broken_pairs_are_left_out_by_name(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    cut_short(tmp_path / "gta5" / "images" / "0000001.png")
    told = _prepare(tmp_path, "gta5")
    assert told[0] == "GTA5 train: 2 pairs, 4 files"
    assert "0000001.png" in told[1]
    assert Sets(DataSettings(root=tmp_path / "half")).source.stems == ("0000000", "0000002")


def test_day_images_come_along(tmp_path: Path) -> None:
    layout = make(tmp_path / "acdc", "acdc", splits=("train", "val"))
    for number in range(3):
        save_image(tmp_path / "acdc" / f"{fill(layout.partner, 'train', number)}.png", number)
    _prepare(tmp_path, "acdc")
    target = Sets(DataSettings(root=tmp_path / "half", target_set="acdc")).target
    assert target.has_partners


def test_other_things_are_never_written_over(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    (tmp_path / "half" / "gta5").mkdir(parents=True)
    (tmp_path / "half" / "gta5" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"to be new, empty or a copy with .*, got other things"):
        _prepare(tmp_path, "gta5")
    assert [path.name for path in (tmp_path / "half" / "gta5").iterdir()] == ["mine.txt"]
    _prepare(tmp_path, "gta5", out=tmp_path / "full", size="full")
    with pytest.raises(ValueError, match=r"got a copy with .*'divisor': 1"):
        _prepare(tmp_path, "gta5", out=tmp_path / "full")


def test_roots_by_option_and_wrong_words(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    assert _prepare(tmp_path, gta5=tmp_path / "gta5") == ["GTA5 train: 3 pairs, 6 files"]
    with pytest.raises(ValueError, match=r"^prepare: expected a layout and its root, got nothing"):
        _prepare(tmp_path)
    with pytest.raises(ValueError, match=r"expected a set of the table .*, got own"):
        _prepare(tmp_path, sets=("own", "images", "labels"))
