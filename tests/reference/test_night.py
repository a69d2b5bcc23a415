"""The streets after dark: the same scenes as by day, darker and lit by lamps, with day partners."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference.ablate import Options, chosen_cells
from reference.data.classes import NAMES
from reference.experiments.rows import adapted_row, new_network
from reference.experiments.scenario import (
    NIGHT,
    Scenario,
    choose_experiment,
    data_folder,
    has_training_labels,
    load_scenario,
)
from reference.synthetic import Sizes, draw_scene, write_domains
from reference.synthetic.look import look_of
from reference.synthetic.scene import Bytes
from reference.training.config import PRESETS, Adaptation, Experiment
from reference.training.method import Method, Start, Step, Stepped

SMALL = (48, 96)
FEW = Sizes(source_train=1, target_train=2, target_val=1, target_test=1)
MOVABLE = tuple(NAMES.index(name) for name in ("person", "car", "truck", "bus"))


def pixels(**options: bool) -> tuple[Bytes, Bytes]:
    scenes = [draw_scene(0, "target", index, SMALL, **options) for index in range(6)]
    images, labels = zip(*scenes, strict=True)
    return np.stack(images), np.stack(labels)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "night"
    write_domains(root, 0, FEW, size=SMALL, night=True)
    return root


@pytest.fixture(scope="module")
def scenario(tiny_experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return load_scenario(tiny_experiment, tmp_path_factory.mktemp("drawn") / "night", NIGHT)


def test_scenes_by_day_are_as_they_were_before_there_was_a_night() -> None:
    digest = hashlib.sha256()
    for domain in ("source", "target"):
        for index in range(4):
            for drawn in draw_scene(0, domain, index, SMALL):  # type: ignore[arg-type]
                digest.update(drawn.tobytes())
    assert digest.hexdigest()[:16] == "b53f87c3d41032ba"


def test_a_night_shows_the_same_things_darker_and_has_bright_lamps() -> None:
    (day, day_labels), (night, night_labels) = pixels(), pixels(night=True)
    assert np.array_equal(day_labels, night_labels)
    assert night.mean() < 0.6 * day.mean() and np.median(night) < 0.5 * np.median(day)
    sky = night_labels == NAMES.index("sky")
    assert night[sky].mean() < 0.25 * day[sky].mean()
    assert (night.max(axis=(1, 2, 3)) > 200).all()
    brighter = (night.astype(int) - day.astype(int)).max(axis=-1) > 30
    assert 0.0 < brighter.mean() < 0.1


def test_the_source_has_no_night() -> None:
    day, night = (draw_scene(0, "source", 1, SMALL, night=night) for night in (False, True))
    assert np.array_equal(day[0], night[0])
    assert look_of("source", 0.7, True).setting == look_of("source", 0.7).setting


def test_other_traffic_stands_in_the_same_street() -> None:
    (own, labels), (others, other_labels) = pixels(), pixels(other_traffic=True)
    still = ~np.isin(labels, MOVABLE) & ~np.isin(other_labels, MOVABLE)
    assert np.array_equal(labels[still], other_labels[still])
    assert (labels != other_labels).mean() > 0.02
    # Not alike to the bit: other things cast other shadows, and blur runs over their edges.
    assert np.median(np.abs(own[still].astype(int) - others[still].astype(int))) == 0


def test_a_night_is_written_with_its_partners_by_day(drawn: Path) -> None:
    assert json.loads((drawn / "toy.json").read_text("utf-8"))["night"] is True
    stems = [f"toytown_00000{index}_000000_leftImg8bit.png" for index in range(2)]
    partners = sorted((drawn / "day").rglob("*.png"))
    assert [path.name for path in partners] == stems
    assert not list((drawn / "day").rglob("*labelIds*"))


def test_a_night_and_a_day_refuse_each_others_folder(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^write_domains: expected .* to hold data drawn with"):
        write_domains(drawn, 0, FEW, size=SMALL)
    write_domains(tmp_path / "day", 0, Sizes(1, 0, 0, 0), size=SMALL)
    with pytest.raises(ValueError, match=r"^write_domains: expected .* to hold data drawn with"):
        write_domains(tmp_path / "day", 0, Sizes(1, 0, 0, 0), size=SMALL, night=True)


def test_night_is_a_target_by_name(tiny_experiment: Experiment) -> None:
    assert choose_experiment(NIGHT, 3) == replace(PRESETS["toy"], seed=3)
    assert has_training_labels(NIGHT)
    folders = {data_folder(Path("runs"), tiny_experiment, target) for target in ("toy", NIGHT)}
    assert [folder.name for folder in sorted(folders)] == ["night-64x32-seed0", "toy-64x32-seed0"]


def test_a_method_that_needs_day_images_is_asked_for_at_night_alone() -> None:
    rows = {
        target: [cell.row for cell in chosen_cells(Options(target=target, method=("all",)))]
        for target in ("toy", NIGHT)
    }
    assert set(rows[NIGHT]) - set(rows["toy"]) == {"method_bi_mix"}
    assert "method_bi_mix" in {
        c.row for c in chosen_cells(Options(target=NIGHT, method=("bi_mix",)))
    }
    sentence = (
        "ablate: expected target night beside method bi_mix, got one without day images. "
        "Hint: give --target night."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        chosen_cells(Options(method=("bi_mix",)))


def test_row_i_of_the_day_images_is_the_partner_of_target_image_i(
    scenario: Scenario, tiny_scenario: Scenario, tiny_experiment: Experiment
) -> None:
    data = tiny_experiment.data
    assert scenario.day_images is not None
    assert scenario.day_images.shape == scenario.target_images.shape
    for index, image in enumerate(scenario.day_images):
        size = (data.height, data.width)
        expected, _ = draw_scene(0, "target", index, size, data.shift, other_traffic=True)
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert tiny_scenario.day_images is None
    assert torch.equal(scenario.source.images, tiny_scenario.source.images)


class Looks(Method):
    """Remembers the start, and learns from the source."""

    def begin(self, start: Start) -> None:
        self.start = start

    def forward(self, step: Step) -> Stepped:
        return Stepped(
            {"source_cross_entropy": step.source_loss(step.network(step.source.images).logits)}
        )


def test_a_row_shows_the_day_images_to_its_method(
    scenario: Scenario, tiny_experiment: Experiment
) -> None:
    method = Looks()
    settings = Adaptation(steps=2, rounds=1, source_batch=2, target_batch=2)
    network = new_network(tiny_experiment)
    row = adapted_row("looks", settings, network, scenario, tiny_experiment, method=method)
    assert row.trained.method is method
    assert method.start.day_images is scenario.day_images
