"""The command prepare: a smaller copy that reads alike, goes on where it stopped, spares others."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.data.prepared import Prepared

from reference import prepare as command
from reference.data.sets import open_set
from reference.prepare import Options, main, prepare, table
from tests.reference.small_sets import (
    make_cityscapes,
    make_gta5,
    make_synthia,
    only,
    save_ids,
    save_image,
)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(
        gta5=make_gta5(tmp_path / "gta5"),
        synthia=make_synthia(tmp_path / "synthia"),
        cityscapes=make_cityscapes(tmp_path / "cityscapes"),
        out=tmp_path / "half",
        workers=0,
    )


def _files(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_copy_keeps_folders_and_reads_as_half_the_original(options: Options) -> None:
    prepare(options, progress=False)
    assert sorted(_files(options.out / "gta5")) == [
        "images/00001.jpg",
        "images/00002.jpg",
        "labels/00001.png",
        "labels/00002.png",
        "prepared_train.json",
    ]
    original, copy = (open_set("gta5", root) for root in (options.gta5, options.out / "gta5"))
    assert isinstance(copy, Prepared)
    assert copy.stems == original.stems and copy.has_labels
    for number in range(2):
        assert copy.image(number).shape == (2, 3, 3)
        assert np.abs(copy.image(number).astype(int) - original.image(number)[:2, :3]).max() <= 2
        assert np.array_equal(copy.labels(number), original.labels(number)[1::2, 1::2])


def test_synthia_becomes_8_bit_train_ids(options: Options) -> None:
    prepare(options, progress=False)
    copy = open_set("synthia", options.out / "synthia")
    original = open_set("synthia", options.synthia)
    assert np.array_equal(copy.labels(0), original.labels(0)[1::2, 1::2])
    with Image.open(options.out / "synthia" / "GT" / "LABELS" / "0000000.png") as file:
        assert file.mode == "L"


def test_cityscapes_train_labels_are_not_touched_and_val_labels_keep_their_size(
    options: Options,
) -> None:
    broken = only(options.cityscapes, "ulm*_labelIds.png")
    broken.write_bytes(b"")
    prepare(options, progress=False)
    folder = options.out / "cityscapes"
    train = open_set("cityscapes", folder, "train", labels=False)
    assert train.image(0).shape == (2, 3, 3) and not train.has_labels
    assert not list(folder.glob("gtFine/train/**/*"))
    val = open_set("cityscapes", folder, "val")
    assert val.image(0).shape == (2, 3, 3) and val.labels(0).shape == (4, 6)
    assert np.array_equal(
        val.labels(1), open_set("cityscapes", options.cityscapes, "val").labels(1)
    )


def test_cityscapes_train_labels_are_copied_when_asked(options: Options) -> None:
    prepare(replace(options, labels=True), progress=False)
    train = open_set("cityscapes", options.out / "cityscapes", "train")
    assert train.labels(0).shape == (2, 3)


def test_full_size_keeps_sizes(options: Options) -> None:
    prepare(replace(options, size="full"), progress=False)
    copy = open_set("gta5", options.out / "gta5")
    assert copy.image(0).shape == (4, 6, 3) and copy.labels(0).shape == (4, 6)


def test_a_stopped_command_goes_on_and_leaves_what_is_there(options: Options) -> None:
    prepare(options, progress=False)
    before = _files(options.out)
    (options.out / "gta5" / "images" / "00002.jpg").unlink()
    with pytest.raises(ValueError) as caught:
        Prepared(options.out / "gta5")
    assert str(caught.value) == (
        f"Prepared: expected {options.out / 'gta5' / 'images' / '00002.jpg'} to be a prepared "
        "file, got none; 1 of 4 files are missing. Hint: preparing was stopped; run the same "
        "command again, which goes on."
    )
    copied = prepare(options, progress=False)
    assert [each.written for each in copied] == [1, 0, 0, 0]
    after = _files(options.out)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"gta5/images/00002.jpg"}


def test_a_broken_original_stops_and_leaves_no_half_written_file(options: Options) -> None:
    (options.gta5 / "labels" / "00002.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00002\.png to be a picture, got 0 bytes"):
        prepare(options, progress=False)
    assert not list(options.out.rglob("*.partial"))
    assert not (options.out / "gta5" / "labels" / "00002.png").exists()


def test_a_foreign_folder_is_refused_before_anything_is_written(options: Options) -> None:
    kept = options.out / "cityscapes" / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises(ValueError) as caught:
        prepare(options, progress=False)
    assert str(caught.value) == (
        "prepare: expected a new or empty folder, or one that it made, got "
        f"{options.out / 'cityscapes'}, which holds other things. Hint: choose another folder "
        "with --out."
    )
    assert kept.read_text() == "mine"
    assert [path for path in options.out.rglob("*") if path.suffix in (".jpg", ".png")] == []


def test_a_folder_of_another_size_is_refused(options: Options) -> None:
    prepare(options, progress=False)
    before = _files(options.out)
    with pytest.raises(ValueError) as caught:
        prepare(replace(options, size="full"), progress=False)
    assert str(caught.value) == (
        f"prepare: expected {options.out / 'gta5'} to hold a copy with image_divisor 1, got 2. "
        "Hint: choose another folder with --out."
    )
    assert _files(options.out) == before


def test_a_folder_of_another_original_is_refused(options: Options, tmp_path: Path) -> None:
    prepare(options, progress=False)
    other = make_gta5(tmp_path / "other")
    with pytest.raises(ValueError) as caught:
        prepare(replace(options, gta5=other), progress=False)
    assert str(caught.value) == (
        f"prepare: expected {options.out / 'gta5'} to hold a copy with source {other.resolve()}, "
        f"got {options.gta5.resolve()}. Hint: choose another folder with --out."
    )


def test_an_original_that_has_grown_is_refused(options: Options) -> None:
    prepare(options, progress=False)
    save_image(options.gta5 / "images" / "00003.png")
    save_ids(options.gta5 / "labels" / "00003.png", [7], palette=True)
    with pytest.raises(ValueError) as caught:
        prepare(options, progress=False)
    assert str(caught.value) == (
        f"prepare: expected {options.out / 'gta5'} to hold a copy with pairs 3 pairs, got 2 or "
        "other files. Hint: choose another folder with --out."
    )


def test_the_table_shows_measured_times(options: Options) -> None:
    copied = prepare(options, progress=False)
    assert [(each.written, each.before_ms > 0, each.after_ms > 0) for each in copied] == [
        (4, True, True),
        (4, True, True),
        (1, True, True),
        (4, True, True),
    ]
    assert table(copied).row_count == 4


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["prepare", *words])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def test_the_command_prints_times_and_roots(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--gta5", str(options.gta5), "--out", str(options.out), "--workers", "0"]
    assert _run(monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    assert "original, ms" in printed
    assert f"Give {options.out / 'gta5'} as the root of gta5." in printed


def test_wrong_input_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(monkeypatch) == (
        "prepare: expected the root of a set, got none. Hint: give --gta5, --synthia or "
        "--cityscapes."
    )
    assert _run(monkeypatch, "--workers", "-1") == (
        "prepare: expected workers of at least 0, got -1."
    )


def test_an_interrupt_is_told(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "prepare", interrupted)
    assert _run(monkeypatch, "--gta5", str(options.gta5)) == 130
    assert capsys.readouterr().err == "Stopped; the same command goes on from here.\n"
