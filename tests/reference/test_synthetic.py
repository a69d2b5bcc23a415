"""The drawn scenes: keyed by four numbers, street-like, and stored without ever overwriting."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.data.classes import CITYSCAPES
from reference.data.layouts import CITYSCAPES_NUMBERS
from reference.data.sets import draw_missing
from reference.data.settings import Drawn
from reference.synthetic.__main__ import draw
from reference.synthetic.draw import MANIFEST
from reference.synthetic.look import NUMBERS, Domain, look_of
from reference.synthetic.scene import Bytes, draw_scene
from tests.reference.killed import killed
from tests.reference.trees import contents

SMALL = (48, 96)
DOMAINS: tuple[Domain, ...] = ("source", "target")
FEW = Drawn(source_train=2, target_train=2, target_val=1, target_test=1, size=SMALL)
NIGHT = Drawn(source_train=1, target_train=2, target_val=1, target_test=1, size=SMALL, night=True)
ROAD, SKY, PERSON, CAR, TRUCK, BUS = 0, 10, 11, 13, 14, 15
# All but wall, rider, train, motorcycle and bicycle.
DRAWN_CLASSES = {0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15}


def same(first: tuple[Bytes, Bytes], second: tuple[Bytes, Bytes]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def targets(**options: bool) -> tuple[Bytes, Bytes]:
    drawn = [draw_scene(0, "target", index, SMALL, **options) for index in range(6)]
    images, labels = zip(*drawn, strict=True)
    return np.stack(images), np.stack(labels)


@pytest.mark.parametrize(("options", "expected"), [
    ({}, "b53f87c3d41032ba"), ({"night": True}, "d5d24d580b229228"),
    ({"night": True, "other_traffic": True, "split": "test"}, "ee963d91184b9683"),
])  # fmt: skip
def test_scenes_are_those_that_the_stored_results_were_made_with(options, expected) -> None:
    digest = hashlib.sha256()
    for domain in DOMAINS:
        for index in range(4):
            for drawn in draw_scene(0, domain, index, SMALL, **options):
                digest.update(drawn.tobytes())
    assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (96, 192)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    image, labels = draw_scene(0, "target", 3, size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert labels.shape == size and labels.dtype == np.uint8


def test_seed_domain_split_and_index_make_a_scene_and_what_was_drawn_before_does_not() -> None:
    forwards = [draw_scene(0, "source", index, SMALL) for index in range(4)]
    np.random.seed(0)
    backwards = [draw_scene(0, "source", i, SMALL) for i in reversed(range(4))]
    assert all(same(a, b) for a, b in zip(forwards, backwards[::-1], strict=True))
    keys = [(0, "source", 0), (1, "source", 0), (0, "target", 0), (0, "source", 1)]
    scenes = [draw_scene(*key, SMALL, shift=0.0) for key in keys]
    scenes += [draw_scene(0, "source", 0, SMALL, split=split) for split in ("val", "test")]
    assert len({image.tobytes() for image, _ in scenes}) == 6


def test_the_dial_moves_the_look_from_the_source_to_the_target_and_leaves_the_source_alone() -> (
    None
):
    drawn = draw_scene(0, "source", 5, SMALL, 0.0)
    assert same(drawn, draw_scene(0, "source", 5, SMALL, 1.0, night=True))
    source, middle, target = (look_of("target", shift).setting for shift in (0.0, 0.5, 1.0))
    assert source == look_of("source", 1.0, True).setting
    for name, ends in NUMBERS.items():
        assert getattr(source, name) == ends[0] and getattr(target, name) == pytest.approx(ends[1])
    assert middle.camera_height == pytest.approx((source.camera_height + target.camera_height) / 2)

    def mean_colour(domain: Domain, shift: float) -> np.ndarray:
        images = [draw_scene(0, domain, index, SMALL, shift)[0] for index in range(12)]
        return np.mean(images, axis=(0, 1, 2))

    near = mean_colour("source", 0.0)
    far = [float(np.linalg.norm(mean_colour("target", s) - near)) for s in (0.0, 0.5, 1.0)]
    assert far[0] < far[1] < far[2]


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_occurs_and_the_frame_looks_like_a_street(domain: Domain) -> None:
    labels = np.stack([draw_scene(0, domain, index, SMALL)[1] for index in range(40)])
    assert {*np.unique(labels).tolist()} == DRAWN_CLASSES
    rows, columns = labels.shape[1:]
    middle = labels[:, :, columns // 3 : -columns // 3]
    assert (middle[:, -rows // 8 :] == ROAD).mean() > 0.6
    assert (labels[:, : rows // 4] == ROAD).mean() == 0.0
    assert (labels[:, -rows // 4 :] == SKY).mean() == 0.0
    assert (labels[:, : rows // 4] == SKY).mean() > 0.1


def test_a_night_shows_the_same_things_darker_and_has_bright_lamps() -> None:
    (day, day_labels), (night, night_labels) = targets(), targets(night=True)
    assert np.array_equal(day_labels, night_labels)
    assert night.mean() < 0.6 * day.mean() and np.median(night) < 0.5 * np.median(day)
    sky = night_labels == SKY
    assert night[sky].mean() < 0.25 * day[sky].mean()
    assert (night.max(axis=(1, 2, 3)) > 200).all()
    brighter = (night.astype(int) - day.astype(int)).max(axis=-1) > 30
    assert 0.0 < brighter.mean() < 0.1


def test_other_traffic_stands_in_the_same_street() -> None:
    (own, labels), (others, other_labels) = targets(), targets(other_traffic=True)
    movable = (PERSON, CAR, TRUCK, BUS)
    still = ~np.isin(labels, movable) & ~np.isin(other_labels, movable)
    assert np.array_equal(labels[still], other_labels[still])
    assert (labels != other_labels).mean() > 0.02
    # Not alike to the bit: other things cast other shadows, and blur runs over their edges.
    assert np.median(np.abs(own[still].astype(int) - others[still].astype(int))) == 0


@pytest.mark.parametrize("size", [(8, 64), (24, 20), (0, 0)])
def test_scenes_of_another_size_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^Drawn: expected size of multiples of 8 from 16 on"):
        Drawn(size=size)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "toy"
    draw(root, 0, FEW)
    return root


def test_files_have_the_names_modes_and_pixels_of_the_real_sets(drawn: Path) -> None:
    stem = "toytown/toytown_000000_000000"
    names = {
        MANIFEST,
        *(f"gta5/{kind}/0000{i}.png" for kind in ("images", "labels") for i in (1, 2)),
        *(f"cityscapes/leftImg8bit/{s}/{stem}_leftImg8bit.png" for s in ("train", "val", "test")),
        *(f"cityscapes/gtFine/{s}/{stem}_gtFine_labelIds.png" for s in ("train", "val", "test")),
    }
    assert names <= set(contents(drawn))
    ids = np.array(CITYSCAPES_NUMBERS)
    image, labels = draw_scene(0, "source", 1, SMALL)
    assert np.array_equal(np.asarray(Image.open(drawn / "gta5/images/00002.png")), image)
    source = Image.open(drawn / "gta5/labels/00002.png")
    assert source.mode == "P" and np.array_equal(np.asarray(source), ids[labels])
    colours = np.asarray(source.convert("RGB"))
    assert np.array_equal(colours, np.array(CITYSCAPES.colours)[labels])
    image, labels = draw_scene(0, "target", 0, SMALL, split="val")
    target = Image.open(drawn / f"cityscapes/gtFine/val/{stem}_gtFine_labelIds.png")
    assert target.mode == "L" and np.array_equal(np.asarray(target), ids[labels])


def test_images_depend_neither_on_how_many_are_drawn_nor_on_jobs(drawn, tmp_path):
    draw(tmp_path, 0, Drawn(3, 3, 2, 1, size=SMALL), jobs=2)
    few, many = contents(drawn), contents(tmp_path)
    shared = set(few) - {MANIFEST}
    assert len(shared) == 2 * (2 + 2 + 1 + 1)
    assert all(few[name] == many[name] for name in shared)


def test_a_night_is_written_with_its_partners_by_day(tmp_path: Path) -> None:
    draw(tmp_path, 0, NIGHT)
    partners = sorted((tmp_path / "day").rglob("*.png"))
    stems = [f"toytown_00000{index}_000000_leftImg8bit.png" for index in range(2)]
    assert [path.name for path in partners] == stems
    assert not list((tmp_path / "day").rglob("*labelIds*"))
    for index, path in enumerate(partners):
        expected, _ = draw_scene(0, "target", index, SMALL, NIGHT.shift, other_traffic=True)
        assert np.array_equal(np.asarray(Image.open(path)), expected)
    with pytest.raises(ValueError, match="drawn with night False, got True"):
        draw_missing(tmp_path, Drawn(1, 2, 1, 1, size=SMALL), 0)


def test_scenes_that_are_killed_at_any_operation_on_a_file_are_completed(tmp_path: Path) -> None:
    few = Drawn(1, 1, 0, 1, size=(16, 16))
    for root in killed(tmp_path, lambda folder: draw(folder, 0, few), least=3):
        draw(root, 0, few)
        assert len(contents(root)) == 1 + 2 * 3


def test_the_same_settings_find_their_data(drawn: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    draw_missing(drawn, FEW, 0)
    # Scenes of a split that a run does not want are in nobody's way.
    draw_missing(drawn, replace(FEW, target_val=0), 0)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before
    assert Drawn().target_val == 0


def test_a_run_that_was_stopped_is_completed_by_a_process_of_its_own(drawn, tmp_path, capfd):
    whole, root = contents(drawn), tmp_path / "stopped"
    for name in [*sorted(whole)[: len(whole) // 2], MANIFEST]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(whole[name])
    edited = root / "gta5/images/00001.png"
    assert not edited.exists()
    draw_missing(root, FEW, 0)
    assert contents(root) == whole and capfd.readouterr() == ("", "")
    edited.write_bytes(b"by hand")
    (root / "gta5/images/00002.png").unlink()
    draw_missing(root, FEW, 0)
    assert contents(root) == {**whole, "gta5/images/00001.png": b"by hand"}


def test_only_the_source_is_drawn_for_photographs(tmp_path: Path) -> None:
    draw_missing(tmp_path / "new", FEW.source_alone(), 1)
    assert len(contents(tmp_path / "new/gta5")) == 4
    assert not (tmp_path / "new/cityscapes").exists()


@pytest.mark.parametrize(("seed", "shift", "drawing", "sentence"), [
    (1, 0.7, None, "seed 1, got 0. Hint: name another folder, with --data.root."),
    (0, 0.6, None, "shift 0.6, got 0.7. Hint: name another folder, with --data.root."),
    (0, 0.7, "0123456789abcdef", "got 0123456789abcdef. Hint: name another folder, with "),
])  # fmt: skip
def test_other_settings_or_drawings_are_refused(drawn, tmp_path, seed, shift, drawing, sentence):
    root = shutil.copytree(drawn, tmp_path / "toy")
    settings = json.loads((root / MANIFEST).read_text("utf-8"))
    settings["drawing"] = drawing or settings["drawing"]
    (root / MANIFEST).write_text(json.dumps(settings), "utf-8")
    (root / "gta5/images/00001.png").unlink()
    before = contents(root)
    with pytest.raises(ValueError, match=f"^synthetic: expected {root} .*{re.escape(sentence)}"):
        draw_missing(root, Drawn(2, 2, 1, 1, size=SMALL, shift=shift), seed)
    assert contents(root) == before


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("thesis.txt", "draft", "a new or empty folder for drawn scenes"),
    (MANIFEST, "{", "to hold settings, got a damaged file"),
    (MANIFEST, "[1]", "to hold settings, got a damaged file"),
])  # fmt: skip
def test_a_folder_with_other_things_is_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        draw_missing(tmp_path, FEW, 0)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == content


def test_the_usual_folder_tells_kinds_sizes_and_seeds_apart() -> None:
    assert str(Drawn().folder(0)) == "runs/data/toy-192x96-seed0"
    assert str(Drawn(night=True).folder(0)) == "runs/data/night-192x96-seed0"
    assert str(Drawn(size=(120, 160)).folder(3)) == "runs/data/toy-160x120-seed3"
