"""Images of several shapes that keep theirs: static labels, panels, scores, and what follows."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference import export, score
from reference.data.checking import scaling
from reference.data.files import require_whole, whole_size
from reference.data.sets import Sets
from reference.data.settings import Crops, DataSettings
from reference.pictures.strips import read_strip
from reference.presets import PRESETS
from reference.run.plan import plan
from reference.settings import Reporting, Settings, StaticLabels
from tests.reference.tiny_runs import SEEN, SIZE, changed, run
from tests.reference.trees import save_image, save_values

WIDE, TALL = (30, 50), (40, 24)
# Of both shapes at a short side of 24: 24x40 and 40x24.
SEEN_AT = {"0": (24, 40), "1": (40, 24)}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    classes = [{"name": n, "colour": [i, i, i], "ids": [i]} for i, n in enumerate(("road", "sky"))]
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    for folder, shapes in (("day", (TALL, WIDE)), ("night", (WIDE, TALL))):
        for number, shape in enumerate(shapes):
            save_image(tmp_path / folder / f"{number}.png", number, shape)
            labels = (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)
            save_values(tmp_path / f"{folder}_labels" / f"{number}.png", labels)
    data = DataSettings(
        "own", "own", source=tmp_path / "day", source_labels=tmp_path / "day_labels",
        target=tmp_path / "night", val_images=tmp_path / "night",
        val_labels=tmp_path / "night_labels", classes=tmp_path / "classes.json", workers=0,
    )  # fmt: skip
    return changed(
        changed(SEEN, network={"kind": "toy"}, reporting={"size": (24, 0)}),
        adaptation={"static": StaticLabels(size=(24, 0)), "rounds": 1},
        data=vars(data),
    )


@pytest.mark.parametrize("method", ["bicl", "dacs"])
def test_a_run_sees_every_image_in_its_own_shape(settings, tmp_path, method):
    folder = tmp_path / "run"
    # A method that mixes images does so in panels, too.
    assert run(replace(settings, method=method), folder)
    strips = [read_strip(path) for path in sorted(folder.glob("panels/target-*/*.png"))]
    assert {strip.stem for strip in strips} == {"0", "1"}
    for strip in strips:
        height, width, _ = strip.pictures["prediction"].shape
        assert (height > width) == (strip.stem == "1")
    header = json.loads((folder / "classes.json").read_text())["header"]
    assert header[1].startswith("2 images at a short side of 24; single scale; ")
    if method == "bicl":
        for stem, size in SEEN_AT.items():
            with Image.open(folder / "labels" / "round-0" / f"{stem}.png") as labels:
                assert labels.size == size[::-1]
        told = json.loads((folder / "labels" / "round-0" / "complete.json").read_text())
        assert 0 < told["coverage"] <= 1


def test_what_follows_a_run_keeps_the_shapes(settings: Settings, tmp_path: Path) -> None:
    source_only = changed(settings, source={"iterations": 1}, adaptation={"iterations": 1})
    assert run(source_only, tmp_path / "run")
    weights, out = tmp_path / "run" / "last.pth", tmp_path / "out"
    card, notes = export.run_export(export.Options(weights, out))
    assert json.loads(card.read_text())["input_size"] == [24, 0]
    (note,) = notes
    assert note == (
        "No model.pt2, no model.onnx: the run keeps the shape of every image, and programs take "
        "images of one size. Hint: give it, such as --size 24 48."
    )
    sized = export.Options(weights, tmp_path / "sized", size=(24, 48), onnx=False)
    card, notes = export.run_export(sized)
    held = json.loads(card.read_text())
    assert (notes, held["input_size"]) == ([], [24, 0])
    assert held["programs"]["input"].startswith("float32 (B, 3, 24, 48), ")
    data = settings.data
    of_run = score.Options(weights=weights, out=tmp_path / "a", window=(16, 24))
    of_card = replace(
        of_run, weights=card, out=tmp_path / "b", root=data.val_images, labels=data.val_labels,
        set="own", classes=data.classes,
    )  # fmt: skip
    for options in (of_run, of_card):
        header = score.run_score(options).header[1]
        assert "at a short side of 24; " in header
        assert "windows of 24x16 every 16x10" in header


def test_a_run_says_what_it_squeezes(settings: Settings) -> None:
    sets = Sets(settings.data)
    assert scaling(settings, sets) == (
        "images are scaled (width x height): labelled 24x40 to 64x32, which changes the aspect "
        "ratio by 233%; target 50x30 to 64x32, which changes the aspect ratio by 20%, its static "
        "labels to a short side of 24; validation 50x30 to a short side of 24"
    )


def test_the_presets_squeeze_nothing() -> None:
    """Shapes of the target's photographs, as each set has them."""
    shapes = {"cityscapes": [(1024, 2048)], "camvid": [(720, 960)]}
    shapes["kitti"] = [(375, 1242), (370, 1224), (376, 1241), (374, 1238)]
    shapes["own"] = [(480, 640), (640, 480), (1080, 1920), (500, 3000)]
    for name, (_, preset) in PRESETS.items():
        for height, width in shapes.get(preset.data.target_set, [preset.data.drawn.size]):
            for size in (preset.reporting.size, preset.adaptation.static.size):
                high, wide = whole_size((height, width), size)
                assert wide * height / (high * width) == pytest.approx(1, abs=0.02), name
    kitti = PRESETS["carla-to-kitti"][1]
    assert kitti.reporting.size == kitti.adaptation.static.size == (240, 800)


@pytest.mark.parametrize(("size", "scale", "seen"), [
    ((512, 1024), 1.0, (512, 1024)), ((512, 1024), 0.75, (384, 768)), ((240, 0), 1.0, (240, 792)),
    ((240, 0), 0.5, (120, 400)), ((1, 0), 1.0, (8, 8)),
])  # fmt: skip
def test_a_width_of_0_keeps_the_shape(size, scale, seen):
    assert whole_size((375, 1242), size, scale) == seen


def test_an_image_with_too_long_a_side_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (200, 3)).save(path)
    told = f"data: expected {path} to have sides of at most 16384 pixels at a short side of 512, "
    told += "got 200x3, which becomes 34136x512. Hint: leave it out."
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        require_whole([path], (512, 0))
    require_whole([path, tmp_path / "none.png"], (512, 1024))
    require_whole([path, tmp_path / "none.png"], (512, 0), 0.25)


def test_a_dry_run_refuses_it(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "night" / "0.png"
    save_image(path, 0, (3, 3000))
    save_values(tmp_path / "night_labels" / "0.png", np.zeros((3, 3000), dtype=np.uint8))
    told = rf"expected {path} .* of 24, got 3000x3, which becomes 24000x24\. Hint: leave it out\.$"
    with pytest.raises(ValueError, match=told):
        plan(settings, tmp_path / "run")
    # Seen whole at one size, it is only cut.
    cut = {"target_crops": Crops(size=None, short_side=(12, 24), crop=(8, 16))}
    squeezed = {"static": StaticLabels(size=SIZE), **cut}
    squeezed = changed(settings, reporting={"size": SIZE}, adaptation=squeezed)
    for start in (plan, run):
        with pytest.raises(ValueError, match=told):
            start(squeezed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [(0, 0), (-1, 0), (512, -1)])
def test_a_size_that_is_none_is_refused(size: tuple[int, int]) -> None:
    wanted = r"expected size of a height and a width, or of a short side and 0, got \("
    for kind in (Reporting, StaticLabels):
        with pytest.raises(ValueError, match=f"^{kind.__name__}: {wanted}"):
            kind(size=size)


def test_a_size_with_too_long_a_side_is_refused() -> None:
    for kind in (Reporting, StaticLabels):
        told = (
            rf"^{kind.__name__}: expected size with sides of at most 16384 pixels, got \(512, 1638"
        )
        with pytest.raises(ValueError, match=told):
            kind(size=(512, 16385))
    for wrong in (
        {"crop": (512, 16385)},
        {"size": (10**5, 9)},
        {"size": None, "short_side": (1, 10**5)},
    ):
        with pytest.raises(
            ValueError, match=r"^Crops: expected lengths of 1\.\.16384 pixels, got \("
        ):
            Crops(**wrong)
    told = r"^Crops: expected size, scale and crop that make sides of at most 16384 pixels, got "
    with pytest.raises(ValueError, match=f"{told}20480"):
        Crops(scale=(0.5, 16.0))
    with pytest.raises(ValueError, match=f"{told}51200"):
        Crops(size=(10, 1000))
