"""What a run writes and shows: rows that survive a kill, terms that come late, bars and lines."""

import csv
import io
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

import reference.run.report
from reference.run.ranks import Ranks
from reference.run.report import Report, read_metrics

NAMES = ("road", "traffic sign")


def report(folder: Path, start: int = 0, ranks: Ranks | None = None, **more: Any) -> Report:
    return Report(folder, NAMES, ranks or Ranks(), total=10, start=start, **more)


def rows_of(folder: Path, *iterations: int, start: int = 0) -> None:
    """Rows of a run, each with a loss of its own number."""
    with report(folder, start, quiet=True) as told:
        for iteration in iterations:
            told.step({"source_cross_entropy": float(iteration)})
            told.row(iteration, "round 0", 0.5, 0.25, [0.75, 0.25])


def test_a_row_holds_means_over_its_steps_and_comes_back_with_types(tmp_path: Path):
    assert read_metrics(tmp_path / "metrics.csv") == []
    with report(tmp_path) as told:
        for losses in ({"a": 1.0, "b": 2.0}, {"a": 3.0}):
            with told.waiting():
                pass
            told.step(losses)
        told.row(2, "round 0", 0.5, 0.25, [0.75, 0.25])
        told.scores(2, "round 0", 50.0)
    first, second = read_metrics(tmp_path / "metrics.csv")
    assert (first["iteration"], first["phase"]) == (2, "round 0")
    assert (first["loss_a"], first["loss_b"]) == (2.0, 1.0)
    assert (first["coverage"], first["share_traffic_sign"]) == (0.25, 0.25)
    assert first["iterations_per_second"] > 0 and 0 <= first["data_wait_share"] <= 1
    assert first["peak_mib"] > 50 and first["cpu_seconds"] > 0
    assert second == {"iteration": 2, "phase": "round 0", "miou_percent": 50.0}


def test_a_resumed_run_drops_rows_after_its_checkpoint(tmp_path: Path):
    rows_of(tmp_path, 1, 2, 3)
    path = tmp_path / "metrics.csv"
    whole = path.read_text().splitlines()
    assert [row["iteration"] for row in read_metrics(path)] == [1, 2, 3]
    rows_of(tmp_path, start=2)
    assert path.read_text().splitlines() == whole[:3]
    rows_of(tmp_path, 3, start=2)
    assert [row["loss_source_cross_entropy"] for row in read_metrics(path)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("text", ["iteration;phase\n1;source\n", "iteration\none\n", "phase\n\xff"])
def test_a_table_that_a_spreadsheet_has_changed_is_one_sentence(tmp_path: Path, text: str):
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"^report: expected metrics in {path}, got others \("):
        read_metrics(path)


def test_a_term_that_comes_late_widens_the_table(tmp_path: Path):
    rows_of(tmp_path, 1)
    with report(tmp_path, 1, quiet=True) as told:
        told.step({"source_cross_entropy": 2.0, "entropy": 0.5})
        told.row(2, "round 1", 0.5)
        told.step({"entropy": 0.75})
        told.row(3, "round 1", 0.5)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert {len(row) for row in table} == {len(table[0])}
    assert table[0][-2:] == ["loss_source_cross_entropy", "loss_entropy"]
    assert [row[-2:] for row in table[1:]] == [["1.0", ""], ["2.0", "0.5"], ["", "0.75"]]


def test_numbers_go_to_tensorboard_where_it_is_installed(tmp_path, monkeypatch):
    module = Mock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    rows_of(tmp_path, 1)
    module.SummaryWriter.assert_called_once_with(str(tmp_path / "tensorboard"), purge_step=1)
    board = module.SummaryWriter.return_value
    board.add_scalar.assert_any_call("loss_source_cross_entropy", 1.0, 1)
    board.close.assert_called_once_with()


def test_lines_are_plain_where_there_is_no_terminal(tmp_path, capsys):
    with report(tmp_path) as told:
        told.step({"a": 1.25, "b": 0.5})
        told.row(1, "round 0", 0.5, 0.25)
        told.warn("sky floods the target.")
        told.labelled(1, 2)
        told.say("")
        told.scores(1, "round 0", 40.0, 41.5, name="miou19")
    line, *others = capsys.readouterr().err.splitlines()
    assert line.startswith("round 0  1/10  loss 1.750 (a 1.250, b 0.500)  cover 25%  lr 5.0e-01  ")
    score = "iteration 1: miou19 40.00, moving average 41.50"
    assert others == ["warning: sky floods the target.", score]


def test_a_terminal_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    shown_on = Console(file=screen, force_terminal=True, width=200)
    monkeypatch.setattr("reference.run.report.Console", lambda **_: shown_on)
    with report(tmp_path, 3) as told:
        told.step({"a": 1.25, "b": 0.5})
        told.row(4, "round 0", 0.5, 0.25)
        told.say("a line above")
    shown = screen.getvalue()
    assert all(word in shown for word in ("a line above", "4/10", "loss 1.750", "cover 25%"))


def test_quiet_prints_warnings_alone_and_other_ranks_print_bad_images_alone(tmp_path, capsys):
    with report(tmp_path, quiet=True) as told:
        told.say("nothing")
        told.warn("this")
    assert capsys.readouterr().err == "warning: this\n"
    with report(tmp_path / "other", ranks=Ranks(1, 2)) as told:
        told.step({"a": 1.0})
        told.row(1, "round 0", 0.5)
        told.warn("nothing")
        told.warn("00001.png is left out.", of_this_rank=True)
    assert capsys.readouterr().err == "warning: 00001.png is left out.\n"
    assert not (tmp_path / "other").exists()


def test_a_run_says_once_how_long_it_takes(tmp_path, monkeypatch, capsys):
    seconds = iter(range(100))
    monkeypatch.setattr(reference.run.report, "ESTIMATE_AFTER", 3)
    monkeypatch.setattr("time.perf_counter", lambda: 2.0 * next(seconds))
    with report(tmp_path) as told:
        for _ in range(5):
            with told.waiting():
                pass
            told.step({"a": 1.0})
        told.row(5, "round 0", 0.5)
    estimate, line = capsys.readouterr().err.splitlines()
    # Each iteration reads the clock three times, 2 s apart, and waits for half of its 4 s.
    assert estimate.startswith("about 28 s for the 7 iterations left at 0.25 it/s, without ")
    assert line.endswith("0.25 it/s  data 50%")
    # At the end there is nothing to tell.
    with report(tmp_path, 7) as told:
        for _ in range(3):
            with told.waiting():
                pass
            told.step({"a": 1.0})
    assert capsys.readouterr().err == ""
