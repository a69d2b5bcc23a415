"""Panels of a run: always the same images, right pixels, nothing trained is changed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.data.resizing import resize_image, resize_labels
from reference.engine.domains import RunDomains
from reference.engine.panels import PROTOTYPES, RunPanels, chosen_images
from reference.engine.phases import phases
from reference.engine.presets import PRESETS
from reference.engine.settings import Settings
from reference.engine.state import RunState
from reference.pictures.domain_prototypes import prototypes_of
from reference.pictures.visualise import colourise

import protocontrast as pc
from reference.data.classes import PALETTE
from reference.networks.release import read_checkpoint
from reference.networks.tensor_files import read_stored
from reference.pictures.strip_files import FOLDER, read_strip
from tests.reference.tiny_runs import ALONE, EVERYTHING, SEEN, digest, held, run, tiny

SHOWN = (192, 384)


def reporting(settings: Settings, **changes: object) -> Settings:
    return replace(settings, reporting=replace(settings.reporting, **changes))


def domains(folder: Path) -> RunDomains:
    return RunDomains(EVERYTHING, folder.parent / "data" / "drawn-64x32-seed0", ALONE)


def test_the_same_images_of_every_set_over_time(seen_run: Path):
    found = sorted(
        str(path.relative_to(seen_run / FOLDER)) for path in seen_run.rglob("panels/*/*")
    )
    # Every third iteration, the last, and once adaptation has gone on for a report's length.
    times = ("00000003", "00000004", "00000006", "00000009")
    sets = ("source-1", "source-3", "target-1", "target-3", "validation-0")
    assert found == [f"{name}/{time}.png" for name in sets for time in times]
    kept = sorted(path.stem for path in (seen_run / PROTOTYPES).iterdir())
    assert kept == ["00000004", "00000006", "00000009"]


def test_what_a_panel_shows(seen_run: Path):
    last = read_strip(seen_run / FOLDER / "target-1" / "00000009.png")
    assert list(last.pictures) == [
        "image",
        "prediction",
        "static labels",
        "labels of the contrast",
        "confidence: black 0, white 1",
    ]
    assert (last.iteration, last.phase) == (9, "round 1")
    assert {picture.shape for picture in last.pictures.values()} == {(*SHOWN, 3)}
    reader = domains(seen_run).target
    assert last.stem == reader.stems[1]
    assert np.array_equal(last.pictures["image"], resize_image(reader.image(1), SHOWN))
    stored = np.array(Image.open(seen_run / "labels" / "round-1" / f"{last.stem}.png"))
    assert np.array_equal(last.pictures["static labels"], colourise(resize_labels(stored, SHOWN)))
    colours = {tuple(colour) for colour in PALETTE.tolist()}
    assert {tuple(c) for c in last.pictures["prediction"].reshape(-1, 3).tolist()} <= colours


def test_the_warm_up_has_no_pseudo_labels_and_labelled_sets_show_the_truth(seen_run: Path):
    early = read_strip(seen_run / FOLDER / "target-1" / "00000003.png")
    assert list(early.pictures) == ["image", "prediction", "confidence: black 0, white 1"]
    for name in ("source-1", "validation-0"):
        strip = read_strip(seen_run / FOLDER / name / "00000009.png")
        assert list(strip.pictures)[:3] == ["image", "prediction", "ground truth"]
        reader = getattr(domains(seen_run), strip.domain)
        truth = colourise(resize_labels(reader.labels(strip.index), SHOWN))
        assert np.array_equal(strip.pictures["ground truth"], truth)


def test_prototypes_are_those_of_the_checkpoint(seen_run: Path):
    kept = prototypes_of(read_stored(seen_run / PROTOTYPES / "00000009.safetensors"))
    stored = prototypes_of(held(seen_run)["bicl"])
    assert torch.equal(kept.source, stored.source)
    assert torch.equal(kept.target, stored.target)


def test_looking_changes_no_bit_and_off_leaves_nothing(seen_run: Path, tmp_path: Path):
    assert run(reporting(EVERYTHING, panels_every=0), tmp_path / "run")
    assert not (tmp_path / "run" / FOLDER).exists()
    assert not (tmp_path / "run" / PROTOTYPES).exists()
    parts = ("student", "teacher", "optimiser", "bicl", "monitor", "iteration")
    seen, unseen = held(seen_run), held(tmp_path / "run")
    assert digest({part: seen[part] for part in parts}) == digest(
        {part: unseen[part] for part in parts}
    )


def test_a_resumed_run_goes_on_with_the_same_panels(seen_run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(seen_run, folder)
    shutil.copytree(seen_run.parent / "data", tmp_path / "data")
    for path in (*folder.glob("checkpoints/*"), folder / "last.pth"):
        if path.stem != "00000008":
            path.unlink()
    assert list(folder.glob("checkpoints/*"))
    for path in folder.rglob("panels/*/00000009.png"):
        path.unlink()
    assert run(SEEN, folder, resume=True)
    for path in seen_run.rglob("panels/*/*"):
        again = folder / path.relative_to(seen_run)
        assert again.read_bytes() == path.read_bytes()


def test_hybrid_labels_are_static_ones_where_there_are_any(seen_run: Path):
    strip = read_strip(seen_run / FOLDER / "target-3" / "00000009.png")
    stored = np.array(Image.open(seen_run / "labels" / "round-1" / f"{strip.stem}.png"))
    network = read_checkpoint(seen_run / "last.pth", "student").network
    with torch.no_grad():
        grid = network(torch.zeros(1, 3, *EVERYTHING.reporting.size)).features.shape[-2:]
    cells = pc.labels_to_grid(torch.from_numpy(stored).long()[None], (grid[0], grid[1]))[0]
    fixed = resize_labels(cells.numpy().astype(np.uint8), SHOWN)
    known = fixed != 255
    assert known.any() and not known.all()
    assert np.array_equal(strip.pictures["labels of the contrast"][known], colourise(fixed)[known])


def test_a_source_only_run_opens_no_target_training_image(tmp_path: Path):
    settings = reporting(
        tiny(Settings(), mode="source-only"), panels_every=1, evaluate=True, evaluate_every=0
    )
    made = domains(tmp_path / "run")
    made.settings = settings
    panels = RunPanels(tmp_path / "run", settings, made)
    assert list(panels.readers) == ["source", "validation"]
    assert "target" not in vars(made)
    panels = RunPanels(tmp_path / "run", reporting(settings, panels_every=4), made)
    assert [iteration for iteration in range(1, 9) if panels.due(iteration)] == [4, 8]


def test_a_stem_per_domain_shows_the_source_by_its_own(tmp_path: Path):
    settings = reporting(tiny(PRESETS["gta5-to-cityscapes-released"][1]), panels_every=1)
    state = RunState(settings, ALONE)
    made = RunDomains(settings, tmp_path / "data", ALONE)
    panels = RunPanels(tmp_path / "run", settings, made)
    warm_up, first = phases(settings)[:2]
    seen: list[str] = []
    state.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["domain"]), with_kwargs=True
    )
    panels(state, warm_up)
    assert set(seen) == {"target"}
    seen.clear()
    panels(state, replace(first, static=False))
    assert seen[:2] == ["source", "source"]
    assert seen[2:] == ["target", "source"] * 2
    assert state.network.training


def test_images_are_picked_by_number_or_evenly():
    assert chosen_images("source", 100, ()) == [25, 75]
    assert chosen_images("source", 1, ()) == [0]
    assert chosen_images("source", 100, (7, 3)) == [7, 3]
    sentence = (
        "train: expected reporting.panel_ids below 30, the number of validation images, got 30."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        chosen_images("validation", 30, (2, 30))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"panels_every": -1}, "Reporting: expected panels_every >= 0, got -1."),
        ({"panel_ids": (3, -2)}, "Reporting: expected panel_ids >= 0, got -2."),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], sentence: str):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        reporting(EVERYTHING, **changes)
