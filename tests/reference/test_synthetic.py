"""The drawn scenes: keyed by four numbers, street-like, and stored without ever overwriting."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference.data.cityscapes import Cityscapes
from reference.data.classes import NAMES, PALETTE, TOY_CLASSES
from reference.data.gta5 import GTA5
from reference.synthetic import Sizes, draw_scene, write_domains
from reference.synthetic.look import SOURCE, TARGET, Domain, look_of

SMALL = (48, 96)
DOMAINS: tuple[Domain, ...] = ("source", "target")


def _same(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_shapes_types_and_classes() -> None:
    image, train_ids = draw_scene(0, "source", 0)
    assert image.shape == (96, 192, 3) and image.dtype == np.uint8
    assert train_ids.shape == (96, 192) and train_ids.dtype == np.uint8
    assert set(np.unique(train_ids)) <= set(TOY_CLASSES)


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (60, 101)])
def test_any_size_can_be_drawn(size: tuple[int, int]) -> None:
    image, train_ids = draw_scene(0, "target", 3, size)
    assert image.shape == (*size, 3)
    assert train_ids.shape == size


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_scene_does_not_depend_on_what_was_drawn_before(domain: Domain) -> None:
    forwards = [draw_scene(0, domain, index, SMALL) for index in range(4)]
    np.random.seed(0)
    backwards = [draw_scene(0, domain, index, SMALL) for index in reversed(range(4))]
    assert all(_same(a, b) for a, b in zip(forwards, backwards[::-1], strict=True))


def test_seed_domain_split_and_index_each_make_another_scene() -> None:
    scenes = [
        draw_scene(0, "source", 0, SMALL),
        draw_scene(1, "source", 0, SMALL),
        draw_scene(0, "target", 0, SMALL, shift=0.0),
        draw_scene(0, "source", 1, SMALL),
        draw_scene(0, "source", 0, SMALL, split="val"),
        draw_scene(0, "source", 0, SMALL, split="test"),
    ]
    assert len({image.tobytes() for image, _ in scenes}) == len(scenes)


def test_the_source_does_not_depend_on_the_shift() -> None:
    assert _same(draw_scene(0, "source", 5, SMALL, 0.0), draw_scene(0, "source", 5, SMALL, 1.0))


def test_at_shift_zero_both_domains_have_one_look_and_at_one_they_do_not() -> None:
    assert look_of("target", 0.0).setting == SOURCE
    for number, expected in asdict(TARGET).items():
        assert getattr(look_of("target", 1.0).setting, number) == pytest.approx(expected), number
    assert look_of("source", 1.0).setting == SOURCE
    middle = look_of("target", 0.5).setting
    assert middle.camera_height == pytest.approx((SOURCE.camera_height + TARGET.camera_height) / 2)


def test_the_dial_moves_the_look_away_from_the_source() -> None:
    def mean_colour(domain: Domain, shift: float) -> np.ndarray:
        images = [draw_scene(0, domain, index, SMALL, shift)[0] for index in range(12)]
        return np.mean(images, axis=(0, 1, 2))

    source = mean_colour("source", 0.0)
    distances = [
        float(np.linalg.norm(mean_colour("target", shift) - source)) for shift in (0.0, 0.5, 1.0)
    ]
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_toy_class_occurs_and_the_frame_looks_like_a_street(domain: Domain) -> None:
    labels = np.stack([draw_scene(0, domain, index, SMALL)[1] for index in range(40)])
    present = {NAMES[i] for i in TOY_CLASSES if (labels == i).any()}
    assert present == {NAMES[i] for i in TOY_CLASSES}
    rows, columns = labels.shape[1:]
    middle = labels[:, :, columns // 3 : -columns // 3]
    assert (middle[:, -rows // 8 :] == NAMES.index("road")).mean() > 0.6
    assert (labels[:, : rows // 4] == NAMES.index("road")).mean() == 0.0
    assert (labels[:, -rows // 4 :] == NAMES.index("sky")).mean() == 0.0
    assert (labels[:, : rows // 4] == NAMES.index("sky")).mean() > 0.1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"seed": -1},
            "draw_scene: expected seed and index >= 0, got seed -1 and index 0.",
        ),
        (
            {"index": -2},
            "draw_scene: expected seed and index >= 0, got seed 0 and index -2.",
        ),
        (
            {"domain": "moon"},
            "draw_scene: expected domain one of ('source', 'target'), got 'moon'.",
        ),
        (
            {"split": "dev"},
            "draw_scene: expected split one of ('train', 'val', 'test'), got 'dev'.",
        ),
        (
            {"size": (8, 64)},
            "draw_scene: expected size (height, width) of at least 16 pixels each, got (8, 64).",
        ),
        ({"shift": 1.5}, "draw_scene: expected shift in [0, 1], got 1.5."),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        draw_scene(**{"seed": 0, "domain": "source", "index": 0, **arguments})  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_a_negative_number_of_images_is_named() -> None:
    with pytest.raises(ValueError) as caught:
        Sizes(target_val=-3)
    assert str(caught.value) == "Sizes: expected target_val >= 0, got -3."


FEW = Sizes(source_train=2, target_train=2, target_val=1, target_test=1)


def _contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "toy"
    write_domains(root, 0, FEW, size=SMALL)
    return root


def test_the_real_readers_read_back_what_was_drawn(drawn: Path) -> None:
    source = GTA5(drawn / "gta5")
    assert source.stems == ("00001", "00002")
    for index in range(2):
        image, train_ids = draw_scene(0, "source", index, SMALL)
        assert np.array_equal(source.image(index), image)
        assert np.array_equal(source.labels(index), train_ids)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        target = Cityscapes(drawn / "cityscapes", split, labels=True)
        assert len(target) == count
        image, train_ids = draw_scene(0, "target", 0, SMALL, split=split)  # type: ignore[arg-type]
        assert np.array_equal(target.image(0), image)
        assert np.array_equal(target.labels(0), train_ids)


def test_files_have_the_names_and_modes_of_the_real_sets(drawn: Path) -> None:
    stem = "toytown/toytown_000000_000000"
    names = {
        "toy.json",
        *(f"gta5/{kind}/0000{i}.png" for kind in ("images", "labels") for i in (1, 2)),
        *(f"cityscapes/leftImg8bit/{s}/{stem}_leftImg8bit.png" for s in ("train", "val", "test")),
        *(f"cityscapes/gtFine/{s}/{stem}_gtFine_labelIds.png" for s in ("train", "val", "test")),
    }
    assert names <= set(_contents(drawn))
    with Image.open(drawn / "gta5" / "labels" / "00001.png") as source:
        assert source.mode == "P"
        colours = set(map(tuple, np.asarray(source.convert("RGB")).reshape(-1, 3).tolist()))
        assert colours <= set(map(tuple, PALETTE.tolist()))
    with Image.open(drawn / f"cityscapes/gtFine/val/{stem}_gtFine_labelIds.png") as target:
        assert target.mode == "L"


def test_images_do_not_depend_on_how_many_are_drawn(drawn: Path, tmp_path: Path) -> None:
    more = Sizes(source_train=3, target_train=3, target_val=2, target_test=1)
    write_domains(tmp_path / "more", 0, more, size=SMALL)
    few, many = _contents(drawn), _contents(tmp_path / "more")
    shared = set(few) - {"toy.json"}
    assert len(shared) == 2 * (2 + 2 + 1 + 1)
    assert all(few[name] == many[name] for name in shared)


def test_the_same_settings_find_their_data_untouched(drawn: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    domains = write_domains(drawn, 0, FEW, size=SMALL)
    assert domains.source == drawn / "gta5" and domains.target == drawn / "cityscapes"
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before


def test_a_run_that_was_stopped_is_completed(drawn: Path, tmp_path: Path) -> None:
    whole, root = _contents(drawn), tmp_path / "stopped"
    for name in [*sorted(whole)[: len(whole) // 2], "toy.json"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(whole[name])
    write_domains(root, 0, FEW, size=SMALL)
    assert _contents(root) == whole


def test_a_picture_changed_by_hand_is_kept(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "edited"
    write_domains(root, 0, FEW, size=SMALL)
    edited = root / "gta5" / "images" / "00001.png"
    edited.write_bytes((root / "gta5" / "images" / "00002.png").read_bytes())
    changed = _contents(root)
    write_domains(root, 0, FEW, size=SMALL)
    assert _contents(root) == changed


@pytest.mark.parametrize(
    ("seed", "shift", "wanted", "found"),
    [(1, 0.7, "seed 1", "0"), (0, 0.6, "shift 0.6", "0.7")],
)
def test_other_settings_are_refused_and_nothing_changes(
    drawn: Path, seed: int, shift: float, wanted: str, found: str
) -> None:
    before = _contents(drawn)
    with pytest.raises(ValueError) as caught:
        write_domains(drawn, seed, FEW, size=SMALL, shift=shift)
    assert str(caught.value) == (
        f"write_domains: expected {drawn} to hold data drawn with {wanted}, got {found}. "
        "Hint: choose another folder for other settings."
    )
    assert _contents(drawn) == before


def test_data_of_another_drawing_is_refused(drawn: Path, tmp_path: Path) -> None:
    settings = json.loads((drawn / "toy.json").read_text(encoding="utf-8"))
    now, settings["drawing"] = settings["drawing"], "0123456789abcdef"
    (tmp_path / "toy.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        write_domains(tmp_path, 0, FEW, size=SMALL)
    assert str(caught.value) == (
        f"write_domains: expected {tmp_path} to hold data drawn with drawing {now}, got "
        "0123456789abcdef. Hint: choose another folder for other settings."
    )
    assert os.listdir(tmp_path) == ["toy.json"]


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("draft")
    with pytest.raises(ValueError) as caught:
        write_domains(tmp_path, 0, FEW, size=SMALL)
    assert str(caught.value) == (
        f"write_domains: expected root to be a new or empty folder, got {tmp_path}, which holds "
        "other things and no toy.json. Hint: choose another folder."
    )
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "toy.json"
    manifest.write_text("{")
    with pytest.raises(ValueError) as caught:
        write_domains(tmp_path, 0, FEW, size=SMALL)
    sentence = str(caught.value)
    assert sentence.startswith(
        f"write_domains: expected {manifest} to hold JSON, got a damaged file ("
    )
    assert sentence.endswith("). Hint: choose another folder.")
    assert manifest.read_text() == "{"


def test_a_bar_is_shown_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_domains(tmp_path / "quiet", 0, Sizes(1, 0, 0, 0), size=SMALL)
    assert capsys.readouterr() == ("", "")
    write_domains(tmp_path / "shown", 0, Sizes(1, 0, 0, 0), size=SMALL, progress=True)
    assert "Drawing street scenes" in capsys.readouterr().err
