"""The command: killed, stopped and resumed with the same bits; refusals; what it writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference.engine.presets import PRESETS

from reference.networks.deeplab import DeepLab
from reference.train import main, plan, read_options
from tests.reference.tiny_runs import EVERYTHING, LONG, digest, held, log_of, run, spawn


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(LONG, folder)
    return folder


def rows(folder: Path) -> int:
    path = folder / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.is_file() else -1


def wait_for_row(process: subprocess.Popen[str], folder: Path, row: int) -> None:
    """Return once so many iterations are on record."""
    deadline = time.monotonic() + 60
    while rows(folder) < row and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, log_of(folder).read_text()


def stopped_at(process: subprocess.Popen[str], folder: Path, row: int, number: int) -> None:
    """Send a signal once so many iterations are on record."""
    wait_for_row(process, folder, row)
    os.killpg(process.pid, number)
    process.wait(timeout=60)


def test_a_run_that_is_killed_twice_ends_with_the_same_bits(uninterrupted: Path, tmp_path: Path):
    folder = tmp_path / "run"
    for row in (5, 14):
        process = spawn("long", folder)
        stopped_at(process, folder, row, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert not (folder / "last.pth").is_file() or held(folder)["iteration"] < 20
    assert run(LONG, folder, resume=True)
    found, expected = held(folder), held(uninterrupted)
    assert found["iteration"] == expected["iteration"] == 20
    assert digest(found) == digest(expected)
    assert rows(folder) == rows(uninterrupted) == 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_saves_and_exits_with_0(
    number: signal.Signals, uninterrupted: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    process = spawn("workers", folder)
    stopped_at(process, folder, 9, number)
    assert process.returncode == 0, log_of(folder).read_text()
    assert "asked to stop: saved iteration" in log_of(folder).read_text()
    stopped = held(folder)["iteration"]
    assert 9 <= stopped < 20
    assert rows(folder) == stopped
    assert run(LONG, folder, resume=True)
    assert digest(held(folder)) == digest(held(uninterrupted))


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1]
)
def test_torchrun_passes_a_signal_on_and_all_ranks_save(number: signal.Signals, tmp_path: Path):
    folder = tmp_path / "run"
    ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = spawn("long", folder, sys.executable, *ranks, "--signals-to-handle=SIGTERM,SIGUSR1")
    wait_for_row(process, folder, 3)
    process.send_signal(number)
    process.wait(timeout=60)
    told = log_of(folder).read_text()
    assert "asked to stop: saved iteration" in told
    assert 3 <= held(folder)["iteration"] == rows(folder) < 20


def test_the_digest_sees_one_bit():
    state = {"a": torch.zeros(3), "b": [1, {"c": torch.ones(2, dtype=torch.bool)}]}
    before = digest(state)
    state["a"][1] = 1e-45
    assert digest(state) != before


def test_a_finished_run_stays_as_it_is(uninterrupted: Path):
    before = digest(held(uninterrupted))
    assert run(LONG, uninterrupted, resume=True)
    assert digest(held(uninterrupted)) == before
    starts = json.loads((uninterrupted / "origin.json").read_text())["starts"]
    assert [start["iteration"] for start in starts] == [0, 20]
    assert {"command", "commit", "code", "versions", "machine"} <= set(starts[0])


def test_a_folder_that_holds_a_run_is_never_reused_silently(uninterrupted: Path):
    names = sorted(path.name for path in uninterrupted.iterdir())
    sentence = (
        f"train: expected run to be a new or empty folder, got {uninterrupted}, which holds "
        f"{names[0]} and {len(names) - 1} more. Hint: choose another one with --run, or go on "
        "with --resume auto."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(LONG, uninterrupted)


def test_other_settings_are_refused_with_a_list(uninterrupted: Path):
    other = replace(
        LONG, seed=5, adaptation=replace(LONG.adaptation, entropy_weight=0.25, rounds=3)
    )
    sentence = (
        f"train: expected the settings that {uninterrupted} began with, got 3 other: "
        "adaptation.entropy_weight: 0.12 -> 0.25; adaptation.rounds: 2 -> 3; seed: 0 -> 5. "
        "Hint: give the old ones, or another folder with --run."
    )
    before = digest(held(uninterrupted))
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(other, uninterrupted, resume=True)
    assert digest(held(uninterrupted)) == before


def test_how_often_is_reported_may_change(uninterrupted: Path):
    other = replace(LONG, reporting=replace(LONG.reporting, every=7))
    assert run(other, uninterrupted, resume=True)


def test_nothing_is_written_where_an_input_is_wrong(tmp_path: Path):
    broken = replace(EVERYTHING, network=replace(EVERYTHING.network, random_weights=False))
    sentence = (
        "train: expected a file of pre-trained weights, got none. Hint: give --network.weights "
        "FILE, or --network.random-weights, which costs most of the score."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(broken, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_tells_what_became_of_its_weights_and_stops_where_the_backbone_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = replace(EVERYTHING, mode="source-only")
    options = settings.network.deeplab
    for name, width in (("right", 8), ("wrong", 16)):
        torch.save(DeepLab(replace(options, width=width)).state_dict(), tmp_path / f"{name}.pth")
        network = replace(settings.network, weights=tmp_path / f"{name}.pth")
        given = replace(settings, network=replace(network, random_weights=False))
        if name == "right":
            assert run(given, tmp_path / name)
            told = capsys.readouterr().err
            report = [line.split()[0] for line in told.splitlines() if line.startswith("  ")]
            assert f"weights {tmp_path / 'right.pth'}, named as in own" in told
            assert report == ["matched", "missing", "unexpected", "shape"]
        else:
            with pytest.raises(ValueError, match=r"^load_weights: expected .* to fill all "):
                run(given, tmp_path / name)
            assert not (tmp_path / name).exists()


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path: Path):
    settings = replace(EVERYTHING, machine=replace(EVERYTHING.machine, accumulate=4))
    sentence = (
        "train: expected a batch_size that 1 processes times accumulate 4 divide, got 2. "
        "Hint: a batch counts images of all processes and parts together."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        run(settings, tmp_path / "run")


def test_a_preset_is_changed_by_the_command_line():
    options = read_options(
        ["gta5-to-cityscapes", "--adaptation.contrast.temperature", "0.2", "--compile"]
    )
    assert options.settings.adaptation.contrast.temperature == 0.2
    assert options.settings.machine.compile
    assert options.run == Path("runs/gta5-to-cityscapes")
    unchanged = read_options(["gta5-to-cityscapes-released"])
    assert unchanged.settings == PRESETS["gta5-to-cityscapes-released"][1]


def test_an_unknown_setting_gets_a_suggestion(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        read_options(["toy", "--adaptation.contrast.temprature", "0.2"])
    assert stop.value.code == 2
    assert "--adaptation.contrast.temperature" in capsys.readouterr().err


def test_print_config_is_json(capsys: pytest.CaptureFixture[str]):
    main(["synthia-to-cityscapes", "--seed", "7", "--print-config"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["seed"] == 7
    assert printed["data"]["source_set"] == "synthia"


def test_a_plan_names_every_phase_and_writes_nothing(tmp_path: Path):
    options = replace(read_options(["toy", "--run", str(tmp_path / "run")]), settings=EVERYTHING)
    lines = plan(options).splitlines()
    assert [line.partition(":")[0] for line in lines[-3:]] == ["source", "round 0", "round 1"]
    assert lines[-1].endswith("static labels made first")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_to_adapt_needs_the_checkpoint_and_no_weights(uninterrupted: Path):
    settings = replace(EVERYTHING, mode="adapt", start=uninterrupted / "last.pth")
    network = replace(settings.network, random_weights=False)
    options = replace(read_options(["toy"]), settings=replace(settings, network=network))
    assert "round 1: iterations 3..5" in plan(options)


def test_folders_of_sets_are_asked_for_in_one_sentence(tmp_path: Path):
    options = read_options(
        ["gta5-to-cityscapes", "--network.random-weights", "--data.root", str(tmp_path)]
    )
    small = replace(options.settings.network, deeplab=EVERYTHING.network.deeplab)
    options = replace(options, settings=replace(options.settings, network=small))
    sentence = (
        f"train: expected a folder gta5 below data.root, got {tmp_path}, which holds no such "
        "folder. Hint: give --data.root with GTA5, SYNTHIA or cityscapes in it, or --data.source."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        plan(options)
