"""Every preset runs through both stages, tiny, and the released ones take the released step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.released import released_step
from reference.bicl import contrast as built
from reference.networks.release import read_checkpoint
from reference.presets import PRESETS
from reference.run.report import read_metrics
from reference.settings import Settings
from tests.reference.tiny_runs import CROPS, EVERYTHING, SIZE, changed, held, run

REAL = [name for name in PRESETS if not name.startswith("toy")]


def tiny(settings: Settings) -> Settings:
    """The settings of a preset with drawn data, a tiny network and few iterations."""
    stage, deeplab = settings.adaptation, settings.network.deeplab
    few: dict[str, Any] = {"iterations": 6, "rounds": 2, "batch_size": 2}
    few |= {"source_crops": CROPS, "target_crops": CROPS}
    few |= {"static": replace(stage.static, size=SIZE), "rare": replace(stage.rare, min_pixels=10)}
    return changed(
        replace(settings, data=EVERYTHING.data, machine=EVERYTHING.machine), adaptation=few,
        network={"random_weights": True, "deeplab": replace(deeplab, backbone="resnet14", width=8)},
        source={"iterations": 3, "batch_size": 2, "crops": CROPS, "class_weight_power": 0.5},
        reporting={"every": 1, "evaluate_every": 0, "panels_every": 0, "size": SIZE},
    )  # fmt: skip


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
    for name in ("synthia-to-cityscapes", "synthia-to-cityscapes-released"):
        assert PRESETS[name][1].data.source_set == "synthia"


CLASSES, DIM, GRID, LABELS = 19, 12, (9, 12), (71, 95)
"""As 730 x 730 labels on a grid of 92 x 92: no whole number of pixels per cell."""


def smooth(seed: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Two maps that change slowly, as those of a network do."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, channels, 4, 5, generator=random)
    return interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def label_maps(seed: int, kept: float) -> Tensor:
    """Regions of ten classes; a share of the pixels has its label, in patches."""
    labels = smooth(seed, 10, LABELS).argmax(dim=1)
    sureness = smooth(seed + 100, 1, LABELS)[:, 0]
    least = sureness.flatten(1).quantile(1 - kept, dim=1)[:, None, None]
    return torch.where(sureness >= least, labels, 255)


@pytest.mark.parametrize("kept", [0.15, 0.6, 1.0])
@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-released")])
def test_the_contrast_is_that_of_the_release(name: str, kept: float):
    bicl = built(PRESETS[name][1].adaptation.contrast, CLASSES, DIM)
    labels, static = label_maps(1, 1.0), label_maps(2, kept)
    leaves = [smooth(seed, DIM, GRID).requires_grad_() for seed in (3, 4)]
    expected = released_step(leaves[0], labels, leaves[1], static, CLASSES)
    for _ in range(2):
        out = bicl(leaves[0], labels, leaves[1], static)
        found = out.target_to_source, out.source_to_target
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs)
            gradients = (
                torch.autograd.grad(value, leaves, retain_graph=True) for value in (mine, theirs)
            )
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
