"""The predict command: the right ids at the image's own size, and nothing on a wrong input."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reference import predict
from reference.commands import read
from reference.data.classes import CITYSCAPES, ClassList, read_classes
from reference.data.image_set import OWN as OWN_LAYOUT
from reference.data.image_set import open_set
from reference.data.layouts import CITYSCAPES_NUMBERS
from reference.evaluation.protocol import read_for_use
from reference.networks.release import read_trained, write_release
from reference.predict import Options, drawings, find_images, run_predict
from tests.reference.killed import assert_starts_again
from tests.reference.small_networks import liking, refuses, write_checkpoint
from tests.reference.trees import cut_short, save_image

OWN = ClassList("mine", tuple("abc"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), {"miou3": (0, 1, 2)})
SYNTHIA = {"source_set": "synthia"}
STREET, CITY = "street.JPG", "ulm/ulm_000000_000019_leftImg8bit.png"


def run(options: Options) -> None:
    images = find_images(options.folder)
    run_predict(options, images, *read_for_use("predict", options))


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def options(tmp_path):
    """Terrain (9) before sidewalk (1), and a source that does not label terrain."""
    path = write_checkpoint(tmp_path / "last.pth", liking(1, 9), data=SYNTHIA)
    folder = tmp_path / "images"
    save_image(folder / CITY, size=(9, 14))
    save_image(folder / STREET, size=(20, 30))
    return Options(folder=folder, weights=path, out=tmp_path / "out", device="cpu", threads=1)


def test_ids_colours_and_overlay_of_the_images_own_size(options):
    save_image(options.folder / "._street.JPG")
    save_image(options.folder / ".cache" / "old.png")
    run(options)
    files = sorted(p.relative_to(options.out).as_posix() for p in options.out.rglob("*.png"))
    kinds = ("colour", "labelIds", "overlay")
    assert files == [f"{kind}/{name}" for kind in kinds for name in ("street.png", CITY)]
    # Terrain has the highest output, and a SYNTHIA source cannot know it: sidewalk, id 8.
    ids = opened(options.out / "labelIds" / CITY)
    assert (ids.shape, ids.dtype, set(ids.ravel())) == ((9, 14), np.uint8, {8})
    colour = opened(options.out / "colour" / "street.png")
    assert colour.shape == (20, 30, 3)
    assert (colour == CITYSCAPES.colours[1]).all()
    pixels = opened(options.folder / CITY).astype(np.float32)
    expected = np.round(0.5 * pixels + 0.5 * np.array(CITYSCAPES.colours[1]))
    assert (opened(options.out / "overlay" / CITY) == expected).all()


def test_a_source_that_labels_all_classes_masks_none(options):
    data = {"source_set": "gta5"}
    weights = write_checkpoint(options.folder.parent / "gta5.pth", liking(1, 9), data=data)
    run(replace(options, weights=weights, window=(8, 16), stride=(4, 8)))
    assert set(opened(options.out / "labelIds" / "street.png").ravel()) == {22}


def test_predictions_are_read_back_with_the_class_list_of_the_run(options, tmp_path):
    listed = [{"name": n, "colour": [0, 0, 0], "ids": i} for n, i in (("a", [1, 4]), ("b", [700]))]
    (tmp_path / "classes.json").write_text(json.dumps(listed))
    classes = read_classes(tmp_path / "classes.json")
    write_checkpoint(options.weights, liking(1, count=2), classes, SYNTHIA, labelled=[0, 1])
    card = write_release(
        tmp_path / "card", read_trained(options.weights, "student"), input_size=(16, 32)
    )
    for number, weights in enumerate((options.weights, card)):
        run(replace(options, weights=weights, out=tmp_path / f"out{number}"))
        labels = tmp_path / f"out{number}" / "labelIds"
        assert set(opened(labels / CITY).ravel()) == {700}
        back = open_set(OWN_LAYOUT, options.folder, "val", classes, labels=True, label_root=labels)
        assert {int(x) for at in range(2) for x in back.labels(at).ravel()} == {1}


def test_a_class_list_without_ids_gives_class_numbers_and_its_colours(options):
    write_checkpoint(options.weights, liking(1, 2, count=3), OWN, SYNTHIA, labelled=[0, 1])
    run(options)
    assert sorted(path.name for path in options.out.iterdir()) == ["colour", "labels", "overlay"]
    assert set(opened(options.out / "labels" / "street.png").ravel()) == {1}
    assert set(opened(options.out / "colour" / "street.png").ravel()) == {2}


def test_photographs_as_people_have_them_are_read(options):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(options.folder / "side.jpg", exif=exif)
    long = "n" * 250 + ".png"
    for name, mode in (("grey.png", "L"), ("palette.png", "P"), (long, "1")):
        Image.new(mode, (8, 6), 1).save(options.folder / name)
    run(options)
    # Turned as a viewer shows it.
    assert opened(options.out / "overlay" / "side.png").shape == (30, 10, 3)
    for name in ("grey.png", "palette.png", long):
        assert opened(options.out / "overlay" / name).shape == (6, 8, 3)


def test_every_class_gets_the_id_of_the_server():
    labels = np.arange(19, dtype=np.uint8).reshape(1, 19)
    drawn = drawings(np.zeros((1, 19, 3), dtype=np.uint8), labels, CITYSCAPES)
    assert tuple(drawn["labelIds"][0]) == CITYSCAPES_NUMBERS


def test_old_predictions_are_never_overwritten(options):
    run(options)
    before = {p: p.stat().st_mtime_ns for p in options.out.rglob("*.png")}
    with refuses("predict: expected out to be a new or empty folder, got "):
        run(options)
    assert {p: p.stat().st_mtime_ns for p in options.out.rglob("*.png")} == before


@pytest.mark.parametrize(("make", "got"), [
    (lambda p: (save_image(p), cut_short(p, 0.9)), r"a file cut short"),
    (lambda p: save_image(p.with_name("street.png")), r"to be alone of its name, got also"),
], ids=["cut", "same name"])  # fmt: skip
@pytest.mark.timeout(60)
def test_a_bad_file_stops_in_one_sentence_before_anything_is_written(options, make, got):
    make(options.folder / "z.png")
    with pytest.raises(ValueError, match=got):
        run(options)
    assert not options.out.exists()


def test_a_damaged_image_is_named_and_earlier_results_stay(options):
    path = options.folder / "z.png"
    save_image(path, size=(64, 64))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with refuses(f"data: expected {path} to be a readable picture, got an error in decoding ("):
        run(options)
    assert len(list((options.out / "labelIds").rglob("*.png"))) == 2
    assert not list(options.out.rglob("*.partial"))


def test_a_disk_that_is_full_ends_in_one_sentence(options, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reference.run.files.os.replace", full)
    with pytest.raises(ValueError, match=r"got: No space left on device\. Hint: free some space"):
        run(options)
    assert not [path for path in options.out.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"folder": Path("none")}, "predict: expected a folder of images none, got none."),
    ({"folder": Path("empty")}, "predict: expected PNG or JPEG files in empty, got none."),
    ({"threads": 0}, "predict: expected threads of at least 1, got 0."),
    ({"device": "cuda"}, 'predict: expected a GPU for device "cuda", got none.'),
    ({"scales": (float("nan"),)}, "Protocol: expected scales above 0 and at most 8, at least"),
    ({"size": (100000, 100000)}, "Protocol: expected size times (1.0,) within 1..16384 pixel"),
    ({"which": "teacher"}, 'read_checkpoint: expected a checkpoint with "description" and "t'),
])  # fmt: skip
def test_wrong_settings_are_refused(options, tmp_path, monkeypatch, changes, sentence):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refuses(sentence):
        run(replace(options, **changes))
    assert not options.out.exists()


@pytest.fixture
def command(options, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    words = [str(options.folder), "--weights", str(options.weights), "--out", str(options.out)]
    monkeypatch.setattr(sys, "argv", ["predict", *words, "--size", "16", "32", "--flip"])
    return lambda: predict.main(read(Options, "predict"))


def test_the_command_labels_and_says_so(options, command, capsys):
    command()
    assert capsys.readouterr().out == (
        f"Wrote colour/, labelIds/, overlay/ of 2 images to {options.out}\n"
    )


def test_pictures_are_not_written_where_they_would_be_labelled_next(options, command):
    inside = options.folder / "predictions"
    sys.argv[sys.argv.index(str(options.out))] = str(inside)
    told = f"predict: expected out outside {options.folder}, got {inside}. Hint: choose another."
    with pytest.raises(SystemExit, match=re.escape(told)):
        command()
    assert not inside.exists()


def test_stopping_says_what_is_left(options, command, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "run_predict", stop)
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 130
    assert f"Stopped; {options.out} holds the images labelled so far." in capsys.readouterr().err


def test_predict_that_was_killed_starts_again(options, tmp_path):
    (options.folder / CITY).unlink()
    assert_starts_again(tmp_path, lambda out: run(replace(options, out=out)), least=6)
