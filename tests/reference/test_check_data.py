"""check_data and the checks before a run: every fault named, refused only what training refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reference.check_data import Options, Report, check, lines, show
from reference.data.checking import check_sets
from reference.data.rare_classes import class_counts, kept_counts
from reference.data.sets import Sets
from reference.data.settings import DataSettings
from tests.reference.trees import cut_short, make, save_deep, save_image, save_values


def _check(root: Path, *words: str, **changes: Any) -> list[Report]:
    options = Options(words, index=root / "index", workers=0, full="all")
    return check(Options(**{**vars(options), **changes}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path / "gta5", "gta5", count=4)
    make(tmp_path / "cityscapes", "cityscapes", splits=("train", "val"))
    return tmp_path


def _image(root: Path, number: int) -> Path:
    return root / "gta5" / "images" / f"{number:07d}.png"


@pytest.mark.parametrize("train_labels", [False, True])
def test_whole_sets_pass_and_their_counts_are_kept(root: Path, train_labels: bool) -> None:
    folder = root / "cityscapes"
    reports = _check(root, gta5=root / "gta5", cityscapes=folder, train_labels=train_labels)
    assert [(each.layout, each.split, each.labels) for each in reports] == [
        ("gta5", "train", True), ("cityscapes", "train", train_labels), ("cityscapes", "val", True)
    ]  # fmt: skip
    gta5 = reports[0]
    assert not any(each.refusal for each in reports)
    assert (gta5.images, gta5.decoded, gta5.expected) == (4, 4, 24966)
    assert gta5.pixels is not None and gta5.pixels["road"] > 0
    assert gta5.probabilities is not None and sum(gta5.probabilities.values()) > 0.99
    assert gta5.index is not None and Path(gta5.index).is_file()


def test_gta5_as_it_really_is(root: Path) -> None:
    save_image(_image(root, 0), size=(7, 12))
    save_image(_image(root, 1), size=(40, 60))
    Image.new("RGB", (12, 8)).save(_image(root, 2))
    (report,) = _check(root, "gta5", str(root / "gta5"))
    assert not report.refusal
    (fault,) = report.faults
    assert "of size 60x40 as its image, got 12x8" in fault
    assert fault.endswith("GTA5 holds a few such pairs, of other sets unpack both again.")
    assert any("1 of 4 images" in told for told in report.warnings)
    assert any("all one colour: 0000002" in told for told in report.warnings)


def test_a_broken_pair_costs_no_counts(root: Path) -> None:
    save_image(_image(root, 1), size=(40, 60))
    cut_short(_image(root, 2))
    (report,) = _check(root, "gta5", str(root / "gta5"))
    assert len(report.faults) == 2 and report.index is not None
    images = Sets(DataSettings("gta5", "cityscapes", root=root)).source
    kept = kept_counts(images, root / "index")
    counted = class_counts(images, root / "again")
    assert kept is not None and np.array_equal(kept, counted)
    assert not counted[1].any() and counted[[0, 2, 3]].any(axis=1).all()
    (strict,) = _check(root, "gta5", str(root / "gta5"), max_bad=0)
    assert "data.max_bad is 0" in strict.refusal


def test_every_broken_file_is_named(root: Path) -> None:
    cut_short(_image(root, 1))
    _image(root, 3).write_bytes(b"")
    for full in ("all", "no"):
        (report,) = _check(root, "gta5", str(root / "gta5"), full=full, sample=1)
        assert len(report.faults) == 2
        assert report.decoded == (2 if full == "all" else 1)
    told = "\n".join(lines(report))
    assert "0000001.png" in told
    assert "0 bytes" in told


def test_scores_need_every_pair(root: Path) -> None:
    cut_short(next((root / "cityscapes" / "leftImg8bit" / "val").rglob("*.png")))
    _, val = _check(root, "cityscapes", str(root / "cityscapes"))
    assert "scores need all of them" in val.refusal


def test_labels_that_are_all_void(root: Path) -> None:
    val = (root / "cityscapes" / "gtFine" / "val").rglob("*.png")
    for path in (*val, *(root / "gta5" / "labels").iterdir()):
        save_values(path, np.zeros((8, 12), dtype=np.uint8))
    gta5, _, val = _check(root, "gta5", str(root / "gta5"), "cityscapes", str(root / "cityscapes"))
    assert "placeholders" in val.refusal
    assert not gta5.refusal
    assert any("they teach nothing" in told for told in gta5.warnings)
    sets = Sets(DataSettings(root=root))
    with pytest.raises(ValueError, match="nothing could be scored"):
        check_sets(sets)
    assert any("they teach nothing" in told for told in check_sets(sets, validation=False))


def test_poor_frames_of_synthia_warn_and_a_poor_set_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "synthia", count=3)
    labels = sorted((tmp_path / "GT" / "LABELS").iterdir())
    save_deep(labels[0], np.full((8, 12), 3))
    (report,) = _check(tmp_path, "synthia", str(tmp_path))
    assert not report.refusal
    assert any("1 label files are poor" in told for told in report.warnings)
    for path in labels:
        save_deep(path, np.zeros((8, 12)))
    (report,) = _check(tmp_path, "synthia", str(tmp_path))
    assert "16 bits per channel" in report.refusal


def test_the_run_checks_what_it_will_open(root: Path) -> None:
    sets = Sets(DataSettings(root=root))
    assert any("the complete set has 24966" in told for told in check_sets(sets))
    save_image(_image(root, 1), size=(40, 60))
    told = check_sets(Sets(DataSettings(root=root)))
    assert any("1 of 4 images of GTA5 are broken" in sentence for sentence in told)
    assert any("0000001.png" in sentence for sentence in told)
    with pytest.raises(ValueError, match=r"data\.max_bad is 0"):
        check_sets(Sets(DataSettings(root=root, max_bad=0)))
    oracle = Sets(DataSettings(root=root, source=root / "none"), oracle=True)
    assert check_sets(oracle, target=False)
    shutil.rmtree(root / "cityscapes")
    alone = Sets(DataSettings(root=root))
    assert check_sets(alone, target=False, validation=False)
    with pytest.raises(ValueError, match=r"folder cityscapes below data\.root"):
        check_sets(alone)


def test_your_own_set(tmp_path: Path) -> None:
    classes = [{"name": "lane", "colour": [9, 9, 9], "ids": [1]}]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    save_image(tmp_path / "images" / "a.jpg")
    save_values(tmp_path / "labels" / "a.png", np.ones((8, 12), dtype=np.uint8))
    words = "own", str(tmp_path / "images"), str(tmp_path / "labels")
    (report,) = _check(tmp_path, *words, classes=tmp_path / "classes.json")
    assert report.pixels == {"lane": 96}
    with pytest.raises(ValueError, match="expected --classes with layout own"):
        _check(tmp_path, *words)


@pytest.mark.parametrize("words", [(), ("gta5",), ("gta5", "a", "kitti"), ("nowhere", "a")])
def test_words_that_name_no_set_are_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^(check_data|data): expected"):
        _check(tmp_path, *words)


def test_an_index_that_cannot_be_written_costs_nothing(root: Path, capsys: Any) -> None:
    (root / "index").write_text("a file")
    with pytest.warns(UserWarning, match="not kept"):
        show(_check(root, "gta5", str(root / "gta5")))
    out = capsys.readouterr().out
    assert "could not be kept" in out
    assert "All that was read is whole." in out


def test_the_command_ends_with_2_when_training_would_refuse(root: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "reference.check_data", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("gta5", str(root / "gta5"), "--json", "--index", str(root / "index"))
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["passed"]
    (root / "gta5" / "labels" / "0000001.png").unlink()
    done = run("--gta5", str(root / "gta5"), "--workers", "0")
    assert done.returncode == 2
    assert "1 of 4 images lack theirs" in done.stdout
