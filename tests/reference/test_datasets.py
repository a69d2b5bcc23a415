"""The readers: real layouts, ids remapped on the fly, target labels never opened."""

import builtins
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from reference.data.classes import IGNORE
from reference.data.datasets import GTA5, GTA5_PAIRS, Cityscapes, load_domain
from tests.reference.small_sets import SIZE, make_cityscapes, make_gta5, only, save_ids, save_image


@pytest.fixture
def gta5(tmp_path: Path) -> Path:
    return make_gta5(tmp_path)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return make_cityscapes(tmp_path)


def test_gta5_reads_images_and_remaps_palette_labels(gta5: Path) -> None:
    reader = GTA5(gta5)
    assert (len(reader), reader.stems, reader.has_labels) == (2, ("00001", "00002"), True)
    assert reader.image(1).shape == (*SIZE, 3)
    assert (reader.image(1) == 2).all()
    labels = reader.labels(0)
    assert labels.dtype == np.uint8
    assert labels[0].tolist() == [0, IGNORE, 13, 0, IGNORE, 13]


def test_gta5_reads_the_double_folder(gta5: Path) -> None:
    for name in ("images", "labels"):
        (gta5 / name).rename(gta5 / "moved")
        (gta5 / name).mkdir()
        (gta5 / "moved").rename(gta5 / name / name)
    reader = GTA5(gta5)
    assert reader.stems == ("00001", "00002")
    assert reader.labels(1)[0, 2] == 13


def test_gta5_pairs_may_differ_in_size(gta5: Path) -> None:
    save_image(gta5 / "images" / "00003.png", size=(8, 10))
    save_ids(gta5 / "labels" / "00003.png", [23], palette=True, size=(8, 10))
    domain = load_domain(GTA5(gta5), SIZE)
    assert domain.images.shape == (3, 3, *SIZE)
    assert domain.labels is not None
    assert (domain.labels[2] == 10).all()


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


def test_labels_without_images_are_one_warning(gta5: Path) -> None:
    (gta5 / "images" / "00002.png").unlink()
    with pytest.warns(UserWarning, match="1 pairs are read .* which holds 2 label files"):
        reader = GTA5(gta5)
    assert reader.stems == ("00001",)


def test_a_small_complete_set_gives_no_warning(gta5: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(GTA5(gta5)) == 2


def test_cityscapes_reads_split_and_cities(cityscapes: Path) -> None:
    reader = Cityscapes(cityscapes, "val", labels=True)
    assert reader.stems == ("aachen_000000_000019", "bonn_000000_000019")
    assert len(reader) == 2 and reader.has_labels
    assert reader.image(0).shape == (*SIZE, 3)
    assert reader.labels(0)[0].tolist() == [0, IGNORE, 18, IGNORE, 0, IGNORE]


def test_cityscapes_reads_train_ids_where_only_they_exist(cityscapes: Path) -> None:
    path = only(cityscapes, "aachen*_labelIds.png")
    path.unlink()
    train_ids = path.with_name(path.name.replace("labelIds", "labelTrainIds"))
    save_ids(train_ids, [0, 18, 255], palette=False)
    labels = Cityscapes(cityscapes, "val", labels=True).labels(0)
    assert labels[0].tolist() == [0, 18, IGNORE, 0, 18, IGNORE]


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


def test_load_domain_scales_images_and_labels(cityscapes: Path) -> None:
    domain = load_domain(Cityscapes(cityscapes, "val", labels=True), (2, 3))
    assert domain.images.shape == (2, 3, 2, 3)
    assert (domain.images == 9).all()
    assert domain.labels is not None
    assert domain.labels.shape == (2, 2, 3)
    assert set(domain.labels.unique().tolist()) <= {0, 18, IGNORE}
    assert domain.stems == ("aachen_000000_000019", "bonn_000000_000019")


def test_load_domain_shows_a_bar_only_when_asked(
    cityscapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Cityscapes(cityscapes, "val", labels=False)
    load_domain(reader, SIZE)
    assert capsys.readouterr() == ("", "")
    load_domain(reader, SIZE, progress=True)
    assert "Reading images" in capsys.readouterr().err
