"""Panels of a run: always the same images, right pixels, and nothing trained is changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reference.data.classes import CITYSCAPES
from reference.networks.tensor_files import read_stored
from reference.pictures.strips import colourise, read_strip
from reference.run.folder import PANELS, PROTOTYPES
from reference.run.panels import chosen_images, due
from reference.settings import Settings, StaticLabels
from tests.reference.tiny_runs import SEEN, SIZE, changed, digest, held, run


def test_the_same_images_of_every_set_over_time(seen_run: Path):
    panels = seen_run / PANELS
    drawn = sorted(str(path.relative_to(panels)) for path in panels.glob("*/*"))
    # Every third iteration, the last, and once adaptation has gone on for a report's length.
    times = ("00000003", "00000004", "00000006", "00000009")
    sets = ("source-1", "source-3", "target-1", "target-3", "validation-0")
    assert drawn == [f"{name}/{time}.png" for name in sets for time in times]
    assert sorted(path.stem for path in (seen_run / PROTOTYPES).iterdir()) == list(times[1:])


def test_what_a_panel_shows(seen_run: Path):
    last = read_strip(seen_run / PANELS / "target-1" / "00000009.png")
    assert list(last.pictures) == [
        *("image", "prediction", "static labels", "labels used", "confidence: black 0, white 1")
    ]
    assert (last.iteration, last.phase) == (9, "round 1")
    assert {picture.shape for picture in last.pictures.values()} == {(192, 384, 3)}
    stored = Image.open(seen_run / "labels" / "round-1" / f"{last.stem}.png")
    sized = np.asarray(stored.resize((384, 192), Image.Resampling.NEAREST))
    assert np.array_equal(last.pictures["static labels"], colourise(sized, CITYSCAPES.colours))
    shown = {tuple(c) for c in last.pictures["prediction"].reshape(-1, 3).tolist()}
    assert shown <= set(CITYSCAPES.colours)


def test_the_warm_up_has_no_pseudo_labels_and_labelled_sets_show_the_truth(seen_run: Path):
    early = read_strip(seen_run / PANELS / "target-1" / "00000003.png")
    assert list(early.pictures) == ["image", "prediction", "confidence: black 0, white 1"]
    for name in ("source-1", "validation-0"):
        strip = read_strip(seen_run / PANELS / name / "00000009.png")
        assert list(strip.pictures)[:3] == ["image", "ground truth", "prediction"]
        assert len(np.unique(strip.pictures["ground truth"].reshape(-1, 3), axis=0)) > 2


def test_prototypes_are_those_of_the_checkpoint(seen_run: Path):
    kept = read_stored(seen_run / PROTOTYPES / "00000009.safetensors")
    stored = held(seen_run)["method"]["state"]
    for name, table in kept.items():
        assert torch.equal(table, stored[f"contrast.{name}"])


@pytest.mark.parametrize(
    "method", ["bicl", "confeti", pytest.param("blda", marks=pytest.mark.slow)]
)
def test_looking_changes_no_bit_of_a_method(method: str, tmp_path: Path):
    short = changed(adaptation={"iterations": 3, "rounds": 1, "static": StaticLabels(size=SIZE)})
    settings = replace(short, method=method)
    often = {"panels_every": 1, "evaluate": True, "evaluate_every": 2}
    assert run(changed(settings, reporting=often), tmp_path / "seen")
    assert run(settings, tmp_path / "unseen")
    seen, unseen = held(tmp_path / "seen"), held(tmp_path / "unseen")
    for part in ("student", "teacher", "optimiser", "method", "monitor", "iteration"):
        assert digest(seen[part]) == digest(unseen[part]), part
    assert not {path.name for path in (tmp_path / "unseen").iterdir()} & {PANELS, PROTOTYPES}


def test_when_panels_are_drawn():
    def drawn(every: int, settings: Settings = SEEN) -> list[int]:
        often = changed(settings, reporting={"panels_every": every})
        return [iteration for iteration in range(1, 10) if due(often, iteration)]

    # The warm-up ends at 3, the first row of adaptation is written at 4, the run ends at 9.
    assert drawn(5) == [3, 4, 5, 9]
    assert drawn(0) == []
    assert drawn(2, replace(SEEN, stages="source-only")) == [2, 3, 4, 6, 8]


def test_images_are_picked_by_number_or_evenly():
    assert chosen_images("source", 100, ()) == [25, 75]
    assert chosen_images("source", 1, ()) == [0]
    assert chosen_images("source", 100, (7, 3)) == [7, 3]
    with pytest.raises(ValueError, match=r"panel_ids below 30, the number of validation images, "):
        chosen_images("validation", 30, (2, 30))
