"""The sets of a run: found, opened when asked for, own classes; target labels never opened."""

import json
import multiprocessing
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reference.data.batches import batches
from reference.data.checking import by_cause, check_set
from reference.data.files import DataError
from reference.data.sets import Sets
from reference.data.settings import Crops, DataSettings
from tests.forked import forked
from tests.reference.trees import make, save_image, save_values

CLASSES = [
    {"name": "lane", "colour": [128, 64, 128], "ids": [1, 4]},
    {"name": "car", "colour": [0, 0, 142], "ids": [2], "label_colours": [[1, 2, 3]]},
    {"name": "sky", "colour": [70, 130, 180], "ids": [300]},
]


def _settings(root: Path, **changes: Any) -> DataSettings:
    return DataSettings(**{"root": root, **changes})


def _own(root: Path, **changes: Any) -> DataSettings:
    """Two folders of photographs and one of validation images, three classes."""
    (root / "classes.json").write_text(json.dumps(CLASSES))
    for folder in ("a", "b", "v"):
        for number in range(3):
            save_image(root / folder / "day" / f"{number}.jpg", number)
            grid = np.resize(np.array([0, 1, 2, 4, 9], dtype=np.uint8), (8, 12))
            save_values(root / f"{folder}_labels" / "day" / f"{number}.png", grid)
    folders = {"source": "a", "source_labels": "a_labels", "target": "b"}
    folders |= {"val_images": "v", "val_labels": "v_labels", "classes": "classes.json"}
    paths = {name: root / folder for name, folder in folders.items()}
    return DataSettings(**{"source_set": "own", "target_set": "own", **paths, **changes})


@pytest.mark.parametrize(("source", "target"), [("GTA5", "cityscapes"), ("gta5", "CityScapes")])
def test_folders_are_found_in_any_case(tmp_path: Path, source: str, target: str) -> None:
    make(tmp_path / source, "gta5")
    make(tmp_path / target, "cityscapes", splits=("train", "val"))
    sets = Sets(_settings(tmp_path))
    assert [len(sets.source), len(sets.target), len(sets.validation)] == [3, 3, 3]
    assert sets.source.has_labels
    assert not sets.target.has_labels
    assert list(sets.classes.means) == ["miou19", "miou16", "miou13"]


def test_a_missing_folder_is_a_sentence_when_it_is_needed(tmp_path: Path) -> None:
    make(tmp_path / "Dark_Zurich", "dark-zurich")
    sets = Sets(_settings(tmp_path, target_set="dark-zurich"))
    assert len(sets.target) == 3
    with pytest.raises(ValueError, match=r"expected a folder gta5 below data\.root"):
        _ = sets.source


def test_headlines_are_means_over_shared_classes(tmp_path: Path) -> None:
    def means(source: str, target: str, **changes: Any) -> list[tuple[str, int]]:
        settings = _settings(tmp_path, source_set=source, target_set=target, **changes)
        return [(name, len(over)) for name, over in Sets(settings).classes.means.items()]

    assert means("synthia", "cityscapes") == [("miou16", 16), ("miou13", 13), ("miou19", 19)]
    assert means("carla", "camvid") == [("miou10", 10), ("miou11", 11)]
    assert means("carla", "camvid", merge=("rider=person",)) == [("miou10", 10)]
    assert means("toy", "toy") == [("miou14", 14)]
    assert means("carla", "kitti")[0] == ("miou13_shared", 13)


def test_merging_changes_labels_and_classes_that_are_labelled(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    sets = Sets(_settings(tmp_path, merge=("road=sidewalk",)))
    assert sets.source.labels(0)[0, 7] == 1
    assert 0 not in sets.source.labelled
    with pytest.raises(ValueError, match=r"expected a class of cityscapes .*, got lorry"):
        Sets(_settings(tmp_path, merge=("lorry=truck",)))


def test_one_drive_is_the_target_and_the_others_the_source(tmp_path: Path) -> None:
    make(tmp_path / "camvid", "camvid", count=7)
    sets = Sets(_settings(tmp_path, target_set="camvid", sequence="place0"))
    assert {sample.place for sample in sets.source.samples} == {"place1"}
    assert [len(sets.target), len(sets.validation)] == [2, 2]
    assert not set(sets.target.stems) & set(sets.validation.stems)
    assert sets.oracle.stems == sets.target.stems
    assert all(sample.labels is None for sample in sets.target.samples)
    with pytest.raises(ValueError, match=r"several drives of .* \(place0, place1\), got dusk"):
        _ = Sets(_settings(tmp_path, target_set="camvid", sequence="dusk")).target


def test_too_few_images_to_keep_some_for_validation_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "carla", "carla", count=4)
    few = Sets(_settings(tmp_path, target_set="carla"))
    assert len(few.target) == 4
    with pytest.raises(DataError, match=r"5 images or more, every fifth .*, got 4\. Hint: add"):
        _ = few.validation
    make(tmp_path / "camvid", "camvid", count=2)
    with pytest.raises(ValueError, match=r"data\.sequence to have 2 images or more, got place0\."):
        _ = Sets(_settings(tmp_path, target_set="camvid", sequence="place0")).validation


def test_own_sets_bring_their_own_classes(tmp_path: Path) -> None:
    sets = Sets(_own(tmp_path))
    assert sets.classes.names == ("lane", "car", "sky")
    assert list(sets.classes.means) == ["miou3"]
    assert sets.source.labels(0)[0, :5].tolist() == [255, 0, 1, 0, 255]
    assert sets.validation.stems == ("day_0", "day_1", "day_2")
    assert sets.source.labelled == (0, 1, 2)
    assert not sets.target.has_labels
    with pytest.raises(ValueError, match=r"--data\.target-labels with layout own, got none"):
        _ = sets.oracle
    unscored = "none. Hint: --reporting.no-evaluate trains without scores; .* --labels.$"
    for name, end in (("val-images", unscored), ("val-labels", unscored), ("target", "none.$")):
        lacking = Sets(_own(tmp_path, **{name.replace("-", "_"): None}))
        with pytest.raises(ValueError, match=rf"--data\.{name} with layout own, got {end}"):
            lacking.opened(target=True, validation=True)
    with pytest.raises(ValueError, match=r"--data\.classes with layout own, got none"):
        Sets(_own(tmp_path, classes=None))


@pytest.mark.parametrize("folder", ["a", "a_labels"])
def test_own_files_that_are_missing_say_what_is_wanted(tmp_path: Path, folder: str) -> None:
    sets = Sets(_own(tmp_path))
    next((tmp_path / folder).rglob("*.*g")).unlink()
    for path in (tmp_path / "a").rglob("*.jpg") if folder == "a" else ():
        path.unlink()
    wanted = r"Hint: images are PNG or JPEG files, labels PNG files with the names of their images"
    with pytest.raises(DataError, match=wanted):
        _ = sets.source


def test_own_labels_may_be_colours_or_sixteen_bits_and_carry_an_ending(tmp_path: Path) -> None:
    settings = _own(tmp_path)
    colours = np.zeros((8, 12, 3), dtype=np.uint8)
    colours[:] = 128, 64, 128
    colours[0] = 1, 2, 3
    colours[0, 1] = 0, 0, 0
    save_values(tmp_path / "a_labels" / "day" / "0.png", colours)
    deep = np.full((8, 12), 300, dtype=np.uint16)
    deep[0] = 1000
    Image.fromarray(deep).save(tmp_path / "a_labels" / "day" / "1_mask.png")
    (tmp_path / "a_labels" / "day" / "1.png").unlink()
    sets = Sets(settings)
    source = sets.source
    assert source.labels(0)[:2, :2].tolist() == [[1, 255], [0, 0]]
    assert source.labels(1)[:2, 0].tolist() == [255, 2]
    # None of the files is one too many.
    assert source.notes == ()
    save_values(tmp_path / "a_labels" / "day" / "5_mask.png", deep.astype(np.uint8))
    notes = Sets(settings).source.notes
    assert notes == (
        f"your own set: 1 label files below {tmp_path / 'a_labels'} belong to no image.",
    )


def test_colours_without_a_score_are_named_and_others_are_refused_once(tmp_path: Path) -> None:
    settings = _own(tmp_path)
    for number in range(3):
        white = np.full((8, 12, 3), 255, dtype=np.uint8)
        white[0] = 128, 64, 128
        save_values(tmp_path / "a_labels" / "day" / f"{number}.png", white)
    with pytest.raises(DataError, match=r"got \(255, 255, 255\) in 84 pixels.*void"):
        Sets(settings).source.labels(0)
    found = check_set(Sets(settings).source, scored=False)
    (told,) = by_cause(found.faults.values())
    assert told.endswith(" The same cause in 2 more.")
    void = [*CLASSES, {"void": [[255, 255, 255]]}]
    (tmp_path / "classes.json").write_text(json.dumps(void))
    sets = Sets(settings)
    assert sets.source.labels(0)[:2, 0].tolist() == [0, 255] and len(sets.classes) == 3


def test_own_classes_read_a_known_set_by_their_names(tmp_path: Path) -> None:
    settings = _own(tmp_path, source_set="gta5", source=tmp_path / "gta5", source_labels=None)
    make(tmp_path / "gta5", "gta5")
    sets = Sets(settings)
    assert sets.source.labelled == (1, 2)
    assert sets.source.labels(0)[0, 7] == 255
    assert list(sets.classes.means) == ["miou2", "miou3"]


def test_decoded_images_are_kept_as_far_as_they_fit(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    kept = Sets(_settings(tmp_path, cache_mib=1)).source
    first, labels = kept.pair(0)
    assert kept.image(0) is first
    assert kept.labels(0) is labels
    assert not first.flags.writeable
    again = pickle.loads(pickle.dumps(kept))
    np.testing.assert_array_equal(again.image(0), first)
    assert again.image(0) is not first
    plain = Sets(_settings(tmp_path)).source
    assert plain.image(0) is not plain.image(0)


def test_a_few_rows_are_scaled_and_another_frame_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "gta5", "gta5")
    save_image(tmp_path / "gta5" / "images" / "0000000.png", size=(7, 12))
    save_image(tmp_path / "gta5" / "images" / "0000001.png", size=(60, 90))
    source = Sets(_settings(tmp_path)).source
    assert source.labels(0).shape == (7, 12)
    with pytest.raises(DataError, match="of size 90x60 as its image, got 12x8"):
        source.pair(1)


def test_equal_names_stay_apart_and_long_ones_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cityscapes" / "leftImg8bit" / "train"
    for place in ("x", "y"):
        save_image(folder / place / "1_leftImg8bit.png")
    assert Sets(_settings(tmp_path)).target.stems == ("x_1", "y_1")
    save_image(folder / "x" / f"{'n' * 230}_leftImg8bit.png")
    with pytest.raises(DataError, match="a name of at most 220 bytes, got 232"):
        _ = Sets(_settings(tmp_path)).target


OPENED: list[str] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and isinstance(arguments[0], str | Path):
        OPENED.append(path := str(arguments[0]))
        # A worker's list stays in the worker.
        if any(part in path for part in ("truth", "gtFine", "/gt/")):
            print(f"opened {path}", flush=True)


def read_split(root: Path, layout: str, pipeline: str, workers: int) -> None:
    """Print the labels that are opened; in a process of its own, which an audit never leaves.

    "target" is the pipeline of adaptation; "oracle" reads the same split with its labels.
    """
    folders = {"target": root}
    if layout == "own":
        folders = {"target": root / "photographs", "classes": root / "classes.json"}
        folders["target_labels"] = root / "truth"
    sets = Sets(DataSettings(target_set=layout, **folders))
    sys.addaudithook(_note)
    # Workers are forks of this process, into which the audit follows.
    multiprocessing.set_start_method("fork", force=True)
    images = sets.target if pipeline == "target" else sets.oracle
    crops = Crops(size=(4, 6), crop=(4, 4))
    drawn = batches(images, crops, seed=0, stream=1, start=0, stop=3, batch_size=2, workers=workers)
    print(f"{len(list(drawn))} batches, {len(OPENED)} paths", flush=True)


def _opened(root: Path, layout: str, pipeline: str, workers: int) -> list[str]:
    if layout == "own":
        classes = [{"name": "road", "colour": [9, 9, 9], "ids": [1]}]
        (root / "classes.json").write_text(json.dumps(classes))
        save_image(root / "photographs" / "a.jpg")
        save_values(root / "truth" / "a.png", np.ones((8, 12), dtype=np.uint8))
    else:
        make(root, layout)
    log = root / "read.log"
    process = forked(read_split, root, layout, pipeline, workers, log=log)
    assert process.wait(timeout=120) == 0, log.read_text()
    return log.read_text().splitlines()


@pytest.mark.parametrize("layout", ["cityscapes", "own"])
@pytest.mark.parametrize("workers", [0, 1])
def test_target_labels_are_never_opened(tmp_path: Path, layout: str, workers: int) -> None:
    (told,) = _opened(tmp_path, layout, "target", workers)
    assert told.startswith("3 batches, ")
    assert not told.endswith(" 0 paths")


@pytest.mark.parametrize(("layout", "workers"), [("own", 0), ("acdc", 1)])
def test_the_audit_sees_labels_that_are_opened(tmp_path: Path, layout: str, workers: int) -> None:
    told = _opened(tmp_path, layout, "oracle", workers)
    assert any(line.startswith("opened ") and line.endswith(".png") for line in told)
    assert told[-1].startswith("3 batches, ")
