"""The loop: a bad term stops it by name, precision, requests to stop, moving averages."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import reference.engine.clock
import reference.engine.loop
import torch
from reference.engine.expectations import Band
from reference.engine.settings import Settings
from reference.engine.signals import Asked
from reference.training.losses import NonFiniteLossError

from tests.reference.tiny_runs import EVERYTHING, digest, held, run

SHORT = replace(EVERYTHING, adaptation=replace(EVERYTHING.adaptation, iterations=2))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_term_that_explodes_stops_the_run_by_name_and_keeps_what_was_saved(tmp_path: Path):
    broken = replace(SHORT, adaptation=replace(SHORT.adaptation, entropy_weight=math.inf))
    sentence = (
        "round 0: expected a finite loss, got entropy = inf at step 3. "
        "Hint: lower the learning rate or the weight of this term."
    )
    with pytest.raises(NonFiniteLossError, match=f"^{re.escape(sentence)}$"):
        run(broken, tmp_path / "run")
    assert held(tmp_path / "run")["iteration"] == 2
    assert all(value.isfinite().all() for value in held(tmp_path / "run")["student"].values())


def test_losses_and_prototypes_stay_float32_under_bf16(tmp_path: Path):
    settings = replace(SHORT, machine=replace(SHORT.machine, precision="bf16"))
    assert run(settings, tmp_path / "run")
    found = held(tmp_path / "run")
    assert found["bicl"]["source_bank.prototypes"].dtype == torch.float32
    assert {value.dtype for value in found["student"].values()} <= {
        torch.float32,
        torch.int64,
        torch.bool,
    }
    assert run(SHORT, tmp_path / "wide")
    assert digest(found["student"]) != digest(held(tmp_path / "wide")["student"])


def test_fp16_needs_a_gpu(tmp_path: Path):
    settings = replace(SHORT, machine=replace(SHORT.machine, precision="fp16"))
    sentence = "train: expected a GPU for precision fp16, got the CPU. Hint: use fp32 or bf16."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(settings, tmp_path / "run")


def test_a_request_while_static_labels_are_made_saves_and_makes_them_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run(SHORT, tmp_path / "whole")
    asked: list[Asked] = []
    real = reference.engine.loop.write_static_labels

    class Loop(reference.engine.loop.Loop):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            asked.append(self.asked)

    def interrupted(*arguments: object, **named: object) -> object:
        asked[-1].yes = True
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("reference.train.Loop", Loop)
        patch.setattr(reference.engine.loop, "write_static_labels", interrupted)
        assert not run(SHORT, tmp_path / "run")
    assert held(tmp_path / "run")["iteration"] == 4
    assert not (tmp_path / "run" / "labels" / "round-1" / "complete.json").exists()
    assert run(SHORT, tmp_path / "run", resume=True)
    assert digest(held(tmp_path / "run")) == digest(held(tmp_path / "whole"))


def test_a_checkpoint_inside_a_round_needs_the_labels_of_that_round(tmp_path: Path):
    settings = replace(
        EVERYTHING, reporting=replace(EVERYTHING.reporting, checkpoint_every=7, keep=9)
    )
    assert run(settings, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "00000009.pth").unlink()
    labels = tmp_path / "run" / "labels" / "round-1"
    (labels / "complete.json").unlink()
    with pytest.raises(ValueError, match=r"^train: expected the static labels that"):
        run(settings, tmp_path / "run", resume=True)


def test_the_moving_average_is_one_of_weights_and_of_batch_statistics(tmp_path: Path):
    assert run(replace(SHORT, ema_decay=0.5), tmp_path / "run")
    found = held(tmp_path / "run")
    assert found["teacher_updates"] == 5
    name = "backbone.bn1.running_mean"
    assert not torch.equal(found["teacher"][name], found["student"][name])
    assert set(found["teacher"]) == set(found["student"])


def test_accumulated_parts_do_a_whole_run(tmp_path: Path):
    settings = replace(SHORT, machine=replace(SHORT.machine, accumulate=2))
    assert run(settings, tmp_path / "run")
    assert [row["iteration"] for row in rows(tmp_path / "run")] == ["1", "2", "3", "4", "5"]


def test_every_ingredient_off_is_a_control_that_sees_source_labels_alone(tmp_path: Path):
    contrast = replace(SHORT.adaptation.contrast, target_to_source=0.0, source_to_target=0.0)
    stage = replace(
        SHORT.adaptation,
        contrast=contrast,
        static_labels=False,
        entropy_weight=0.0,
        source_entropy_weight=0.0,
    )
    settings: Settings = replace(SHORT, adaptation=stage)
    assert run(settings, tmp_path / "run")
    last = rows(tmp_path / "run")[-1]
    off = ("static_cross_entropy", "entropy", "source_entropy", "target_to_source", "coverage")
    assert last["source_cross_entropy"] and not any(last[name] for name in off)
    assert not (tmp_path / "run" / "labels").exists()
    assert held(tmp_path / "run")["bicl"] is None


def test_a_run_says_once_how_long_it_takes_and_its_peak_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(reference.engine.clock, "ESTIMATE_AFTER", 2)
    assert run(SHORT, tmp_path / "run")
    told = [line for line in capsys.readouterr().err.splitlines() if "peak memory" in line]
    assert len(told) == 1
    assert re.fullmatch(
        r"about \S+ (s|min) for the 3 iterations left at \S+ it/s, without evaluations and static "
        r"labels; peak memory of the process \d+\.\d GiB",
        told[0],
    )


def test_an_early_score_is_judged_where_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def band(settings: Settings, iteration: int) -> Band | None:
        return Band(2, 0.0) if iteration == 2 else None

    monkeypatch.setattr(reference.engine.loop, "expected_band", band)
    reporting = replace(SHORT.reporting, evaluate=True, evaluate_every=0, panels_every=0)
    assert run(replace(SHORT, mode="source-only", reporting=reporting), tmp_path / "run")
    told = [line for line in capsys.readouterr().err.splitlines() if "does it train?" in line]
    assert len(told) == 1
    assert told[0].endswith("after 2 iterations, expected 0 or more: OK")
    scored = [row["iteration"] for row in rows(tmp_path / "run") if row["miou_percent"]]
    assert scored == ["2", "3"]
