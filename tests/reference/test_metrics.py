"""Metrics on disk and on screen: rows after a checkpoint are dropped, times are told."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import reference.engine.clock
import reference.engine.console
import torch
from reference.engine.clock import ESTIMATE_AFTER, Clock
from reference.engine.console import RunConsole
from reference.engine.metrics import COLUMNS, Metrics
from reference.engine.monitor import Monitor
from rich.console import Console

from reference.data.classes import NUM_CLASSES
from tests.reference.tiny_runs import ALONE

ROW = {
    "iteration": 4,
    "phase": "round 0",
    "learning_rate": 0.5,
    "source_cross_entropy": 1.25,
    "coverage": 0.5,
    "iterations_per_second": 3.0,
    "data_wait_share": 0.25,
}


def test_a_resumed_run_drops_rows_after_its_checkpoint_and_torn_ones(tmp_path: Path):
    metrics = Metrics(tmp_path)
    for iteration in (1, 2, 3):
        metrics.write({**ROW, "iteration": iteration})
    with metrics.path.open("a") as file:
        file.write("2,rou")
    metrics.close()
    Metrics(tmp_path, iteration=2).close()
    lines = metrics.path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
    assert lines[2].split(",")[2:4] == ["0.5", "1.25"]


def test_numbers_go_to_tensorboard_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            seen.append((name, value, step))

        def close(self) -> None:
            seen.append(("closed", 0.0, 0))

    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    metrics = Metrics(tmp_path)
    metrics.write(ROW)
    metrics.close()
    assert ("source_cross_entropy", 1.25, 4) in seen
    assert seen[-1][0] == "closed"


def test_lines_are_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]):
    with RunConsole(True, 10, 0) as console:
        console.at(4, "round 0")
        console.row(ROW)
        console.warn("sky floods the target.")
        console.advance(1, 2)
    shown = capsys.readouterr().err
    assert shown == (
        "round 0  4/10  ce_s 1.250  cover 50%  lr 5.0e-01  3.00 it/s  data 25%\n"
        "warning: sky floods the target.\n"
    )


def test_a_terminal_shows_a_bar_with_every_term(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        reference.engine.console,
        "Console",
        lambda **named: Console(file=screen, force_terminal=True, width=200),
    )
    with RunConsole(True, 10, 2) as console:
        console.at(4, "round 0")
        console.row(ROW)
        console.say("a line above")
    shown = screen.getvalue()
    assert "a line above" in shown
    assert "4/10" in shown and "ce_s 1.250" in shown and "data 25%" in shown


def test_the_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]):
    with RunConsole(False, 10, 0) as console:
        console.row(ROW)
        console.warn("nothing")
    assert capsys.readouterr().err == ""


def test_speed_and_waiting_are_measured_and_an_estimate_is_given_once(
    monkeypatch: pytest.MonkeyPatch,
):
    now = iter(range(10**6))
    monkeypatch.setattr(reference.engine.clock.time, "perf_counter", lambda: float(next(now)))
    clock = Clock(torch.device("cpu"))
    estimates = []
    for _ in range(ESTIMATE_AFTER + 1):
        clock.ask()
        clock.receive()
        clock.finish()
        estimates.append(clock.estimate(100))
    # Each iteration takes two ticks, one of them waiting.
    assert clock.window() == (0.5, 0.5)
    told = [sentence for sentence in estimates if sentence]
    assert len(told) == 1 and estimates[ESTIMATE_AFTER - 1] == told[0]
    # Each iteration takes two ticks; the first is not counted.
    assert told[0] == (
        "about 3.3 min for the 100 iterations left at 0.50 it/s, without evaluations and static "
        f"labels; peak memory of the process {clock.peak_mib / 1024:.1f} GiB"
    )
    assert clock.peak_mib > 10


def test_an_alarm_is_told_once_and_remembered_over_a_resume():
    monitor = Monitor()
    source = torch.arange(10).repeat(100)
    monitor.see(source, source, torch.tensor(0.5))
    assert monitor.close(ALONE) == (0.5, [])
    flooded = torch.full((1000,), 3)
    monitor.see(source, flooded, None)
    coverage, told = monitor.close(ALONE)
    assert coverage is None
    assert any(sentence.startswith("wall floods the target") for sentence in told)
    resumed = Monitor()
    resumed.load(monitor.state(), whole=True)
    resumed.see(source, flooded, None)
    assert resumed.close(ALONE) == (None, [])
    assert len(resumed.start) == NUM_CLASSES


def test_a_window_leaves_the_shares_of_its_predictions_behind():
    monitor = Monitor()
    assert monitor.now is None
    source = torch.tensor([0, 255])
    for _ in range(2):
        monitor.see(source, torch.tensor([0, 0, 0, 13]), None)
        monitor.close(ALONE)
        assert monitor.now is not None
        assert (monitor.now[0], monitor.now[13], sum(monitor.now)) == (0.75, 0.25, 1.0)
    monitor.close(ALONE)
    assert monitor.now is None


def test_an_open_window_belongs_to_the_process_that_stored_it():
    monitor = Monitor()
    monitor.see(torch.zeros(4), torch.zeros(4), None)
    for whole in (True, False):
        resumed = Monitor()
        resumed.load(monitor.state(), whole=whole)
        assert len(resumed.open) == whole
