"""Every preset runs through both stages at a tiny size with all that it switches on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reference.data.sets import Sets
from reference.networks.release import read_checkpoint
from reference.presets import PRESETS
from reference.run.report import read_metrics
from reference.settings import Settings
from tests.reference.tiny_runs import CROPS, EVERYTHING, SIZE, held, run

REAL = [name for name in PRESETS if not name.startswith("toy")]


def tiny(settings: Settings) -> Settings:
    """The settings of a preset with drawn data, a tiny network and few iterations."""
    stage, deeplab = settings.adaptation, settings.network.deeplab
    seen = replace(settings.reporting, every=1, evaluate_every=0, panels_every=0, size=SIZE)
    return replace(
        settings,
        data=EVERYTHING.data,
        network=replace(
            settings.network,
            random_weights=True,
            deeplab=replace(deeplab, backbone="resnet14", width=8),
        ),
        source=replace(
            settings.source, iterations=3, batch_size=2, crops=CROPS, class_weight_power=0.5
        ),
        adaptation=replace(
            stage,
            iterations=6,
            rounds=2,
            batch_size=2,
            source_crops=CROPS,
            target_crops=CROPS,
            static=replace(stage.static, size=SIZE),
            rare=replace(stage.rare, min_pixels=10),
        ),
        machine=EVERYTHING.machine,
        reporting=seen,
    )


@pytest.mark.parametrize("name", REAL)
def test_a_preset_runs_from_the_warm_up_to_the_last_round(name: str, tmp_path: Path) -> None:
    preset = PRESETS[name][1]
    settings = tiny(replace(preset, source=replace(preset.source, rare=EVERYTHING.source.rare)))
    assert run(settings, tmp_path / "run")
    rows = [row for row in read_metrics(tmp_path / "run/metrics.csv") if "miou_percent" not in row]
    assert [row["phase"] for row in rows] == ["source"] * 3 + ["round 0"] * 3 + ["round 1"] * 3
    wanted = {"source_cross_entropy", "static_cross_entropy", "entropy"}
    wanted |= {"target_to_source", "source_to_target"}
    if name.endswith("released"):
        wanted.add("source_entropy")
    if name.endswith("balanced"):
        wanted.remove("entropy")
    terms = [{column[5:] for column in row if column.startswith("loss_")} for row in rows]
    assert terms[0] == {"source_cross_entropy"} and terms[-1] == wanted
    release = read_checkpoint(tmp_path / "run" / "last.pth", "student")
    assert release.network(torch.rand(1, 3, *SIZE)).logits.shape[1] == 19
    assert held(tmp_path / "run")["best"] is not None
    assert (tmp_path / "run" / "classes.md").is_file()


def test_sizes_that_nothing_divides_fit_prototypes_and_labels(tmp_path: Path) -> None:
    settings = tiny(PRESETS["gta5-to-cityscapes-released"][1])
    odd = replace(CROPS, crop=(27, 45))
    stage = replace(settings.adaptation, iterations=2, source_crops=odd, target_crops=odd)
    assert run(replace(settings, adaptation=stage), tmp_path / "run")


def test_the_released_presets_switch_off_what_the_release_lacks() -> None:
    contrast = PRESETS["gta5-to-cityscapes-released"][1].adaptation.contrast
    assert not contrast.dynamic_labels and not contrast.calibrate
    assert contrast.prototypes == "batch" and contrast.pairwise
    paper = PRESETS["gta5-to-cityscapes"][1].adaptation.contrast
    assert paper.dynamic_labels and paper.calibrate


def test_synthia_is_scored_on_the_classes_that_it_labels() -> None:
    for name in ("synthia-to-cityscapes", "synthia-to-cityscapes-released"):
        classes = Sets(PRESETS[name][1].data).classes
        assert list(classes.means)[:2] == ["miou16", "miou13"]
        assert len(classes.means["miou16"]) == 16
