"""The command itself: killed, stopped and resumed with the same bits, alone and on two ranks."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import reference.train
from reference.data.sets import Sets, draw_missing
from reference.data.settings import Crops
from reference.presets import Options
from reference.run.ranks import Ranks
from reference.run.state import State
from reference.settings import Settings
from reference.train import main
from tests.forked import Forked, forked, on_ranks
from tests.reference.tiny_runs import (
    EVERYTHING,
    LAST,
    LONG,
    SEEN,
    SIZE,
    changed,
    digest,
    held,
    options,
    rows,
    run,
    spawn,
)
from tests.reference.trees import cut_short

# As docs/training.md has it.
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "-m")


def log(folder: Path) -> Path:
    return folder.with_suffix(".log")


def wait_for_row(process: subprocess.Popen[str] | Forked, folder: Path, row: int) -> None:
    """Return once so many iterations are on record."""
    deadline = time.monotonic() + 200
    while len(rows(folder)) < row and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, log(folder).read_text()
    assert len(rows(folder)) >= row, f"{row} rows take longer than 200 s on this machine"


def started(settings: Settings, folder: Path, *more: str, **launcher: Any) -> Any:
    return spawn(options(settings, folder, "--resume", "auto", *more), log(folder), **launcher)


def go_on(settings: Settings, folder: Path) -> None:
    """What the command does once it is read."""
    main(Options(folder=folder, resume="auto", settings=settings))


def typed(words: list[str]) -> None:
    """What `python -m reference.train` does with its words."""
    sys.argv[1:] = words
    runpy.run_module("reference.train", run_name="__main__")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(LONG, folder)
    return folder


def test_a_run_that_is_killed_anywhere_ends_with_the_same_bits(uninterrupted: Path, tmp_path: Path):
    folder = tmp_path / "run"
    after = random.Random(os.urandom(8))
    for row in (3, 8):
        process = forked(go_on, LONG, folder, log=log(folder))
        wait_for_row(process, folder, row)
        time.sleep(after.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert run(LONG, folder, resume=True)
    assert held(folder)["iteration"] == LAST
    assert digest(held(folder)) == digest(held(uninterrupted))
    assert [row["iteration"] for row in rows(folder)] == [str(n + 1) for n in range(LAST)]
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_a_signal_to_all_processes_saves_and_exits_with_0(number, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = forked(go_on, changed(LONG, data={"workers": 1}), folder, log=log(folder))
    wait_for_row(process, folder, 6)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 0, log(folder).read_text()
    assert "asked to stop: saved iteration" in log(folder).read_text()
    assert 6 <= held(folder)["iteration"] == len(rows(folder)) < LAST
    assert run(LONG, folder, resume=True)
    assert digest(held(folder)) == digest(held(uninterrupted))


def test_a_run_whose_worker_is_killed_ends_with_a_sentence(tmp_path: Path):
    folder = tmp_path / "run"
    settings = changed(LONG, source={"iterations": 10**4}, data={"workers": 1})
    process = forked(go_on, settings, folder, log=log(folder))
    wait_for_row(process, folder, 3)
    (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert process.wait(timeout=60) == 1, log(folder).read_text()
    told = log(folder).read_text().splitlines()[-1]
    assert told.startswith("data: expected every worker to read to the end, got DataLoader worker")


def test_torchrun_as_typed_in_the_docs_stops_and_goes_on_with_the_same_bits(tmp_path: Path):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert on_ranks(go_on, LONG, whole, log=log(whole)) == [0, 0], log(whole).read_text()
    handling = (*TORCHRUN[:-1], "--signals-to-handle", "SIGTERM,SIGUSR1", "-m")
    process = started(LONG, folder, launcher=handling)
    wait_for_row(process, folder, 3)
    process.send_signal(signal.SIGUSR1)
    process.wait(timeout=60)
    assert "asked to stop: saved iteration" in log(folder).read_text()
    assert 3 <= held(folder)["iteration"] == len(rows(folder)) < LAST
    assert started(LONG, folder, launcher=TORCHRUN).wait(timeout=120) == 0, log(folder).read_text()
    assert "Warning" not in log(folder).read_text()
    assert held(folder)["iteration"] == LAST
    assert digest(held(folder)) == digest(held(whole))
    assert len(list((folder / "labels" / "round-1").glob("*.png"))) == 4
    ranks = json.loads((folder / "origin.json").read_text())["starts"][0]["machine"]["ranks"]
    assert ranks == 2


def test_processes_that_refuse_a_command_line_or_a_run_say_so_once(tmp_path: Path) -> None:
    assert on_ranks(typed, ["tey"], log=tmp_path / "log") == [1, 1]
    told = (tmp_path / "log").read_text()
    assert told.count("train: expected the name of a preset, got 'tey'.") == 1, told
    # Of a run they ask the store of torchrun who is first.
    words = ["toy", "--folder", str(tmp_path / "run"), "--source.batch-size", "3"]
    process = spawn(words, tmp_path / "log", TORCHRUN)
    assert process.wait(timeout=120) == 1
    said, _, told = (tmp_path / "log").read_text().partition("Traceback")
    assert said.count("train: expected a batch_size that 2 processes ") == 1, said
    # The report that torchrun ends with repeats it as the cause.
    assert "traceback : train: expected a batch_size that 2 pr" in told.splitlines()[-2], told
    process = spawn(["toy", "--seed", "-1"], tmp_path / "wrong", TORCHRUN)
    assert process.wait(timeout=120) == 1
    said, _, told = (tmp_path / "wrong").read_text().partition("Traceback")
    assert said.count("expected seed within 0..2**63 - 1, got -1.") == 1, said
    assert "expected seed within 0..2**63 - 1, got -1." in "".join(told.splitlines()[-9:]), told


def without_chance(settings: Settings, **switches: Any) -> Settings:
    """No dropout, crops or statistics of the batch, and an optimiser that enlarges no rounding."""
    plain = {"head": "dlv2", "features": "branches", "batch_norm": "frozen"}
    slow = replace(settings.source.optimiser, learning_rate=1e-5)
    measured = {"measure": "similarity", "threshold": 0.2}
    contrast = replace(settings.adaptation.contrast, **{**measured, **switches})
    whole = Crops(size=SIZE, crop=SIZE, flip=0.0)
    crops = {"source_crops": whole, "target_crops": whole}
    return changed(
        settings,
        network={"deeplab": replace(settings.network.deeplab, **plain)},
        source={"optimiser": slow, "crops": whole},
        adaptation={"optimiser": slow, "contrast": contrast, **crops},
    )


# What makes labels or features of its own for the contrast.
SWITCHES = {
    "balance": "class", "agree": True, "teacher": True, "warmup": 5, "projection": True,
    "prior": 0.5, "measure": "confidence",
}  # fmt: skip


@pytest.mark.parametrize("switches", [{}, SWITCHES], ids=["published", "switches"])
def test_two_ranks_and_two_parts_equal_one_process(tmp_path: Path, switches: dict[str, Any]):
    settings = without_chance(EVERYTHING, **switches)
    assert run(settings, tmp_path / "one")
    halves = changed(settings, machine={"accumulate": 2})
    ended = on_ranks(go_on, settings, tmp_path / "two", log=tmp_path / "two.log")
    assert ended == [0, 0], (tmp_path / "two.log").read_text()
    one, two = held(tmp_path / "one"), held(tmp_path / "two")
    for name, value in one["student"].items():
        torch.testing.assert_close(two["student"][name], value, rtol=1e-3, atol=1e-5)
    bank = one["method"]["state"]
    assert any("present" in name and value.any() for name, value in bank.items())
    for name, value in bank.items():
        torch.testing.assert_close(two["method"]["state"][name], value, rtol=1e-3, atol=1e-5)
    # Counts of the monitor are those of all ranks.
    assert torch.equal(two["monitor"]["source"], one["monitor"]["source"])
    assert run(halves, tmp_path / "halves")
    # Each part moves the bank once, so only the warm-up is the same.
    for half, whole in zip(rows(tmp_path / "halves")[:3], rows(tmp_path / "one"), strict=False):
        name = "loss_source_cross_entropy"
        assert float(half[name]) == pytest.approx(float(whole[name]), rel=1e-4)


def test_a_finished_run_stays_as_it_is(uninterrupted: Path):
    before = digest(held(uninterrupted))
    assert run(LONG, uninterrupted, resume=True)
    assert digest(held(uninterrupted)) == before
    starts = json.loads((uninterrupted / "origin.json").read_text())["starts"]
    assert [start["iteration"] for start in starts][:2] == [0, LAST]


def test_a_run_begins_with_the_network_of_another(uninterrupted: Path, tmp_path: Path):
    settings = replace(EVERYTHING, stages="adapt", begin=uninterrupted / "last.pth")
    assert run(settings, tmp_path / "longer")
    assert held(tmp_path / "longer")["iteration"] == 6


def test_a_term_that_explodes_stops_the_run_by_name_and_keeps_what_was_saved(tmp_path: Path):
    settings = changed(adaptation={"entropy_weight": 1e39})
    with pytest.raises(FloatingPointError, match=r"^train: expected a finite loss, got entropy = "):
        run(settings, tmp_path / "run")
    assert held(tmp_path / "run")["iteration"] == 2
    assert all(value.isfinite().all() for value in held(tmp_path / "run")["student"].values())


def test_losses_and_prototypes_stay_float32_under_bf16(tmp_path: Path):
    short = changed(source={"iterations": 1}, adaptation={"iterations": 2})
    assert run(changed(short, machine={"precision": "bf16"}), tmp_path / "run")
    state = held(tmp_path / "run")["method"]["state"]
    dtypes = {value.dtype for value in state.values() if value.is_floating_point()}
    assert dtypes == {torch.float32, torch.float64}
    assert run(short, tmp_path / "wide")
    student = held(tmp_path / "run")["student"]
    assert {value.dtype for value in student.values()} <= {torch.float32, torch.int64, torch.bool}
    assert digest(student) != digest(held(tmp_path / "wide")["student"])


def test_a_broken_target_image_is_left_out_of_labels_panels_and_steps(tmp_path, capsys):
    data = replace(SEEN.data, root=tmp_path / "scenes")
    draw_missing(tmp_path / "scenes", data.drawn, SEEN.seed)
    broken = Sets(data).target.samples[1]
    cut_short(broken.image)
    settings = replace(changed(SEEN, network={"kind": "toy"}), data=data)
    assert run(settings, tmp_path / "run")
    assert f"left out, 1 so far: data: expected {broken.image} " in capsys.readouterr().err
    labels = {path.stem for path in (tmp_path / "run/labels/round-1").glob("*.png")}
    assert labels == {sample.stem for sample in Sets(data).target.samples} - {broken.stem}
    assert {path.name for path in (tmp_path / "run/panels").glob("target-*")} == {"target-3"}
    assert run(replace(settings, data=replace(data, max_bad=1)), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"and data\.max_bad is 0\.$"):
        run(replace(settings, data=replace(data, max_bad=0)), tmp_path / "strict")


def test_a_checkpoint_inside_a_round_needs_the_labels_of_that_round(tmp_path: Path):
    settings = changed(reporting={"checkpoint_every": 7, "keep": 9})
    assert run(settings, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "00000009.pth").unlink()
    (tmp_path / "run" / "labels" / "round-1" / "complete.json").unlink()
    with pytest.raises(ValueError, match=r"^train: expected the static labels that"):
        run(settings, tmp_path / "run", resume=True)


def test_a_request_while_static_labels_are_made_saves_and_makes_them_anew(tmp_path, monkeypatch):
    small = changed(network={"kind": "toy"})
    assert run(small, tmp_path / "whole")
    real = reference.train.write_static_labels

    def interrupted(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(reference.train, "write_static_labels", interrupted)
        assert not run(small, tmp_path / "run")
    assert held(tmp_path / "run")["iteration"] == 6
    assert not (tmp_path / "run" / "labels" / "round-1" / "complete.json").exists()
    assert run(small, tmp_path / "run", resume=True)
    assert digest(held(tmp_path / "run")) == digest(held(tmp_path / "whole"))


def test_every_ingredient_off_is_a_control_that_sees_source_labels_alone(tmp_path: Path):
    contrast = replace(EVERYTHING.adaptation.contrast, target_to_source=0.0, source_to_target=0.0)
    off = {"static_labels": False, "entropy_weight": 0.0, "source_entropy_weight": 0.0}
    assert run(changed(adaptation={"contrast": contrast, **off}), tmp_path / "run")
    last = rows(tmp_path / "run")[-1]
    assert [name for name in last if name.startswith("loss_")] == ["loss_source_cross_entropy"]
    assert not last["coverage"] and not (tmp_path / "run" / "labels").exists()


def test_the_warm_up_trains_the_stem_that_is_scored_and_adaptation_begins_with_a_copy(tmp_path):
    deeplab = replace(EVERYTHING.network.deeplab, stems="per_domain")
    settings = changed(network={"deeplab": deeplab}, reporting={"checkpoint_every": 3, "keep": 9})
    assert run(settings, tmp_path / "run")
    first, last = (
        torch.load(tmp_path / "run" / "checkpoints" / f"0000000{number}.pth")["student"]
        for number in (3, 9)
    )
    begun = State(settings, Sets(settings.data, 0), Ranks()).network.state_dict()
    for state, moved in ((first, False), (last, True)):
        name = "conv1.weight"
        assert torch.equal(state[f"backbone.{name}"], begun[f"backbone.{name}"]) != moved
        assert not torch.equal(state[f"backbone.target.{name}"], begun[f"backbone.target.{name}"])


def test_the_digest_sees_one_bit():
    state = {"a": torch.zeros(3), "b": [1, {"c": torch.ones(2, dtype=torch.bool)}]}
    before = digest(state)
    state["a"][1] = 1e-45
    assert digest(state) != before
