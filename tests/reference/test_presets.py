"""Every preset runs through both stages at a tiny size with all that it switches on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference.engine.presets import PRESETS
from reference.engine.validation import protocol_of

from reference.data.classes import SUBSETS
from reference.networks.release import read_checkpoint
from tests.reference.tiny_runs import SIZE, held, run, tiny

REAL = [name for name in PRESETS if name != "toy"]


@pytest.mark.parametrize("name", REAL)
def test_a_preset_runs_from_the_warm_up_to_the_last_round(name: str, tmp_path: Path):
    settings = tiny(PRESETS[name][1])
    reporting = replace(settings.reporting, evaluate=True, evaluate_every=0)
    assert run(replace(settings, reporting=reporting), tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source_cross_entropy"]]
    assert [row["phase"] for row in rows] == ["source"] * 3 + ["round 0"] * 3 + ["round 1"] * 3
    terms = {"source_cross_entropy", "static_cross_entropy", "entropy"}
    terms |= {"target_to_source", "source_to_target"}
    if name.endswith("released"):
        terms.add("source_entropy")
    numbers = {column for column in rows[-1] if column in terms | {"source_entropy"}}
    assert {column for column in numbers if rows[-1][column]} == terms
    assert not rows[0]["static_cross_entropy"] and not rows[0]["target_to_source"]
    release = read_checkpoint(tmp_path / "run" / "last.pth", "student")
    assert release.network(torch.rand(1, 3, *SIZE)).logits.shape[1] == 19
    assert held(tmp_path / "run")["best"] is not None
    assert (tmp_path / "run" / "classes.md").is_file()


def test_sizes_that_nothing_divides_fit_prototypes_and_labels(tmp_path: Path):
    settings = tiny(PRESETS["gta5-to-cityscapes-released"][1])
    stage = settings.adaptation
    source, target = (
        replace(crops, crop=(27, 45)) for crops in (stage.source_crops, stage.target_crops)
    )
    stage = replace(stage, iterations=2, source_crops=source, target_crops=target)
    assert run(replace(settings, adaptation=stage), tmp_path / "run")


def test_the_released_presets_switch_off_what_the_release_lacks():
    contrast = PRESETS["gta5-to-cityscapes-released"][1].adaptation.contrast
    assert not contrast.dynamic_labels and not contrast.calibrate
    assert contrast.prototypes == "batch" and contrast.pairwise
    paper = PRESETS["gta5-to-cityscapes"][1].adaptation.contrast
    assert paper.dynamic_labels and paper.calibrate


def test_synthia_is_scored_on_the_classes_that_it_labels():
    for name in ("synthia-to-cityscapes", "synthia-to-cityscapes-released"):
        settings = PRESETS[name][1]
        assert protocol_of(settings).classes == SUBSETS["16"]
