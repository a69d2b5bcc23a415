"""The predict command: the right ids at the image's own size, and nothing on a wrong input."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reference import predict
from reference.data.classes import CITYSCAPES_TO_TRAIN, PALETTE
from reference.networks.card import describe
from reference.networks.release import read_release, write_release
from reference.predict import Options, pictures, prepare, run_predict
from tests.reference.small_networks import small_deeplab
from tests.reference.small_sets import save_image


def run(options: Options) -> None:
    run_predict(options, *prepare(options), progress=False)


@pytest.fixture
def options(tmp_path):
    """A network that prefers terrain (train id 9) to sidewalk (1) to all others, everywhere."""
    network = small_deeplab()
    for branch in network.head.branches:
        branch.weight.data.zero_()
    network.head.branches[0].bias.data[[1, 9]] = torch.tensor([1.0, 2.0])
    write_release(tmp_path / "net", network, input_size=(16, 24), source="synthia")
    save_image(tmp_path / "images" / "ulm" / "ulm_000000_000019_leftImg8bit.png", size=(9, 14))
    save_image(tmp_path / "images" / "street.JPG", size=(20, 30))
    return Options(
        tmp_path / "images", tmp_path / "net" / "card.json", tmp_path / "out", device="cpu"
    )


def test_ids_colours_and_overlay_of_the_images_own_size(options):
    run(options)
    files = sorted(p.relative_to(options.out).as_posix() for p in options.out.rglob("*.png"))
    names = ["street.png", "ulm/ulm_000000_000019_leftImg8bit.png"]
    assert files == [f"{kind}/{n}" for kind in ("colour", "labelIds", "overlay") for n in names]
    # Terrain has the highest output, and a SYNTHIA source cannot know it: sidewalk, id 8.
    ids = np.asarray(Image.open(options.out / "labelIds" / names[1]))
    assert (ids.shape, ids.dtype) == ((9, 14), np.uint8)
    assert set(ids.ravel()) == {8}
    colour = np.asarray(Image.open(options.out / "colour" / names[0]))
    assert colour.shape == (20, 30, 3)
    assert (colour == PALETTE[1]).all()
    overlay = np.asarray(Image.open(options.out / "overlay" / names[1]))
    assert (overlay == np.round(0.5 * 9 + 0.5 * PALETTE[1].astype(float))).all()


def test_a_checkpoint_of_a_run_does_as_well(options, tmp_path):
    network = read_release(options.weights).network
    path = tmp_path / "last.pth"
    held = {"description": describe(network), "teacher": network.state_dict()}
    settings = {"data": {"source_set": "synthia"}, "reporting": {"size": [16, 32]}}
    torch.save({**held, "settings": settings}, path)
    raw = replace(options, weights=path, which="teacher")
    assert prepare(raw)[2].size == (16, 32)
    run(raw)
    street = "labelIds/street.png"
    assert set(np.asarray(Image.open(options.out / street)).ravel()) == {8}
    # With a GTA5 source terrain (id 22) is known.
    run(replace(raw, source="gta5", size=(16, 24), out=tmp_path / "again"))
    assert set(np.asarray(Image.open(tmp_path / "again" / street)).ravel()) == {22}
    torch.save(held, path)
    third = replace(raw, out=tmp_path / "third")
    assert prepare(replace(third, source="gta5"))[2].size == (512, 1024)
    sentence = (
        "predict: expected the data set that the network was trained on, got no source and none in "
        f"{path}. Hint: give --source gta5, synthia or toy; it says which classes the network "
        "knows."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        prepare(third)


def test_every_class_gets_the_id_of_the_server():
    labels = np.arange(19, dtype=np.uint8).reshape(1, 19)
    drawn = pictures(np.zeros((1, 19, 3), dtype=np.uint8), labels)
    ids = drawn["labelIds"]
    assert ids[0, :5].tolist() == [7, 8, 11, 12, 13]
    assert np.array_equal(CITYSCAPES_TO_TRAIN[ids], labels)
    assert np.array_equal(drawn["colour"][0], PALETTE)


def test_a_folder_that_holds_something_is_left_alone(options):
    options.out.mkdir()
    (options.out / "notes.txt").write_text("mine")
    sentence = (
        f"predict: expected out to be a new or empty folder, got {options.out}, which holds "
        "notes.txt. Hint: choose another one with --out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(options)
    assert [path.name for path in options.out.iterdir()] == ["notes.txt"]


def test_folders_without_images_are_refused(options, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, sentence in [
        ("none", f"predict: expected a folder of images {tmp_path / 'none'}, got none."),
        ("empty", f"predict: expected PNG or JPEG files in {tmp_path / 'empty'}, got none."),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            run(replace(options, folder=tmp_path / folder))
    assert not options.out.exists()


def test_two_images_with_one_result_are_refused(options):
    save_image(options.folder / "street.png")
    sentence = (
        "predict: expected images whose names differ before the dot, got "
        f"{options.folder / 'street.JPG'} and street.png."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(options)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_file_that_is_no_image_stops_before_anything_is_written(options, content):
    path = options.folder / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        run(options)
    sentence = (
        rf"predict: expected a readable image, got {re.escape(str(path))} \(.+\)\. "
        r"Hint: the file is damaged; copy it again, or take it out of the folder\."
    )
    assert re.fullmatch(sentence, str(caught.value))
    assert not options.out.exists()


def test_a_png_with_a_flipped_bit_stops_before_anything_is_written(options):
    path = save_image(options.folder / "z.png", size=(64, 64))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^predict: expected a readable image, got .*z\.png "):
        run(options)
    assert not options.out.exists()


def test_an_image_that_is_cut_short_is_named_and_earlier_results_stay(options):
    whole = save_image(options.folder / "z.jpg", size=(64, 64))
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"^predict: expected a readable image, got .*z.jpg "):
        run(options)
    assert len(list((options.out / "labelIds").rglob("*.png"))) == 2
    assert not list(options.out.rglob("*.partial"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"threads": 0}, "predict: expected threads of at least 1, got 0."),
        (
            {"scales": (0.0,)},
            "Protocol: expected a positive size and at least one scale above 0, got size "
            "(16, 24) and scales (0.0,).",
        ),
    ],
)
def test_wrong_settings_are_refused(options, changes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(replace(options, **changes))
    assert not options.out.exists()


def test_a_gpu_that_is_not_there_is_refused(options, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=r'^predict: expected a GPU for device "cuda", got none\.$'
    ):
        run(replace(options, device="cuda"))


def test_the_command_labels_and_says_so(options, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    words = [str(options.folder), "--weights", str(options.weights), "--out", str(options.out)]
    monkeypatch.setattr(sys, "argv", ["predict", *words, "--size", "16", "32", "--flip"])
    predict.main()
    assert capsys.readouterr().out == (
        f"Wrote labelIds/, colour/, overlay/ of 2 images to {options.out}\n"
    )
    with pytest.raises(SystemExit, match=r"^predict: expected out to be a new or empty folder"):
        predict.main()


def test_stopping_says_what_is_left(options, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "run_predict", stop)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    words = [str(options.folder), "--weights", str(options.weights), "--out", str(options.out)]
    monkeypatch.setattr(sys, "argv", ["predict", *words])
    with pytest.raises(SystemExit) as caught:
        predict.main()
    assert caught.value.code == 130
    assert f"Stopped; {options.out} holds the images labelled so far." in capsys.readouterr().err
