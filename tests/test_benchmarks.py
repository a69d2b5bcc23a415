"""The benchmarks run, compare equal things only, and their numbers stand in the document."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import compare, measure, report
from benchmarks.agreement import Disagreement, check, check_all, reference
from benchmarks.cases import CASES, LIBRARY, OPERATORS, Case, Inputs, build, run

ROOT = Path(__file__).resolve().parents[1]
TINY = Case("contrast", "features + prototypes", 16, size=(6, 8))
MIB = 1024 * 1024


def row(contender: str, time_ms: float, peak_mib: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "allocator": report.DEFAULT,
        "operator": "contrast",
        "gradient": "features",
        "channels": 64,
        "layout": "NCHW",
        "size": [128, 256],
        "contender": contender,
        "time_ms": time_ms,
        "spread_ms": 0.5,
        "peak_mib": peak_mib,
        **changes,
    }


def test_every_benchmark_runs() -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--map-size", "8x12", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    expected = sum(len(OPERATORS[case.operator].contenders) for case in CASES)
    assert f"\n{expected} passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_contenders_agree_on_both_layouts(operator: str, layout: str) -> None:
    gradient = "none" if operator == "transfer_labels" else "features"
    case = Case(operator, gradient, 16, layout, size=(6, 8))
    inputs = build(case)
    wanted = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert inputs.features.is_contiguous(memory_format=wanted)
    check_all(case, inputs, OPERATORS[operator])


def test_inputs_are_as_the_document_says() -> None:
    inputs = build(Case("bidirectional step", "both features", 16, size=(64, 64)))
    assert 0.27 < (inputs.labels == 255).float().mean() < 0.33
    assert inputs.labels[inputs.labels != 255].unique().tolist() == list(range(19))
    assert [t.requires_grad for t in inputs] == [True, False, False, True, False]


def spoilt(results: dict[str, Tensor], name: str, value: Tensor | None) -> dict[str, Tensor]:
    changed = results | {name: value}
    return {key: tensor for key, tensor in changed.items() if tensor is not None}


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("loss", lambda t: t * 1.0001, "who: expected loss within "),
        ("loss", lambda t: t * torch.nan, "who: expected loss within .* error of nan"),
        ("gradient of features", lambda t: t * 1.0001, "who: expected gradient of features within"),
        ("gradient of features", lambda t: t[:1], "who: expected gradient of features of shape"),
        ("gradient of prototypes", lambda t: None, "who: expected .*, got .*"),
    ],
)
def test_the_gate_finds_a_wrong_result(name: str, change: Any, sentence: str) -> None:
    inputs = build(TINY)
    results = run(OPERATORS["contrast"], LIBRARY, inputs)
    expected = reference(TINY, inputs)
    check(results, expected, "who")
    with pytest.raises(Disagreement, match=sentence):
        check(spoilt(results, name, change(results[name])), expected, "who")


def test_the_gate_finds_a_single_wrong_label() -> None:
    labels = torch.zeros(4, 5, dtype=torch.int64)
    wrong = labels.clone()
    wrong[3, 4] = 1
    with pytest.raises(Disagreement, match=r"who: expected equal labels, got 1 others\."):
        check({"labels": wrong}, {"labels": labels}, "who")


def test_nothing_is_measured_before_all_agree() -> None:
    calls = []
    right = OPERATORS["contrast"]

    def warmer(given: Inputs) -> dict[str, Tensor]:
        calls.append("warmer")
        return {"loss": 1.01 * right.contenders["eager"](given)["loss"]}

    operator = right._replace(contenders=right.contenders | {"warmer": warmer})
    with pytest.raises(Disagreement, match="features, D=16, 6x8, NCHW, warmer: expected loss"):
        measure.rows(Case("contrast", "features", 16, size=(6, 8)), operator, repetitions=3)
    assert calls == ["warmer"]


def test_contenders_take_turns_in_rotating_order() -> None:
    order = ""

    def called(name: str) -> None:
        nonlocal order
        order += name

    calls = {name: lambda n=name: called(n) for name in "abc"}
    taken = measure.interleaved(calls, repetitions=4)
    assert order == "abc" + "bca" + "cab" + "abc"
    assert {name: len(values) for name, values in taken.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(milliseconds >= 0 for values in taken.values() for milliseconds, _ in values)


def kept() -> Tensor:
    return torch.ones(16, MIB // 4)


def passing() -> None:
    (torch.ones(16, MIB // 4) + 1).sum()


@pytest.mark.skipif(not measure.RESET.exists(), reason="the kernel has no peak counter to reset")
@pytest.mark.parametrize(("call", "expected"), [(kept, 16), (passing, 32), (lambda: None, 0)])
def test_peak_memory_is_that_of_the_call(call: Any, expected: float) -> None:
    peak = measure.peak_extra_bytes(call)
    assert peak is not None
    assert abs(peak / MIB - expected) < 1


@pytest.mark.skipif(not measure.RESET.exists(), reason="the kernel has no peak counter to reset")
def test_a_child_that_fails_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise KeyError("in the child")

    with pytest.raises(RuntimeError, match="expected a peak from the child, got exit status 1"):
        measure.peak_extra_bytes(fails)
    assert "in the child" in capfd.readouterr().err


def test_ratios_are_gains_over_the_contender() -> None:
    found = measure.with_ratios([row(LIBRARY, 20, 18), row("eager", 110, 120), row("new", 5, None)])
    assert [r["speedup"] for r in found] == [1, 5.5, 0.25]
    assert [r["memory_ratio"] for r in found] == [1, 0.15, None]


def test_the_table_shows_both_allocators() -> None:
    rows = measure.with_ratios([row(LIBRARY, 20, 18), row("eager", 110, 120)])
    other = {"allocator": report.NO_FAULTS}
    rows += measure.with_ratios([row(LIBRARY, 16, 18, **other), row("eager", 72, 120, **other)])
    lines = report.comparison(rows).splitlines()
    assert len(lines) == 3
    assert lines[2] == (
        "| contrast | features | 64 | 128x256 | NCHW | eager | 110 (0.50) | 20 (0.50) | 5.50x "
        "| 72 (0.50) | 16 (0.50) | 4.50x | 120 | 18 | 0.15 |"
    )


def test_a_goal_is_met_missed_or_not_measured() -> None:
    rows = measure.with_ratios([row(LIBRARY, 20, 48), row("eager", 110, 120)])
    table = report.goals(rows)
    name = "| contrast, gradient: features, D = 64 | eager | "
    assert f"{name}at least 5 times as fast | 5.50, met | not measured |" in table
    assert f"{name}at most 0.3 of its peak | 0.40, missed | not measured |" in table
    rows = measure.with_ratios([row(LIBRARY, 20, 36), row("eager", 99, 120)])
    table = report.goals(rows)
    assert f"{name}at least 5 times as fast | 4.95, missed |" in table
    assert f"{name}at most 0.3 of its peak | 0.30, met |" in table


def test_every_goal_is_about_a_case() -> None:
    measured = {
        (c.operator, c.gradient, c.channels, contender)
        for c in CASES
        for contender in OPERATORS[c.operator].contenders
    }
    assert {(g.operator, g.gradient, g.channels, g.contender) for g in report.GOALS} <= measured


def test_the_measured_part_replaces_the_old_one() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    changed = report.insert(text, "new")
    assert changed == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.insert(changed, "new") == changed
    assert report.inserted(changed) == "new"
    with pytest.raises(ValueError, match=r"insert: expected text with .*, got neither or one\."):
        report.insert(text.replace(report.END, ""), "new")


def test_the_document_shows_the_published_numbers() -> None:
    published = json.loads(compare.RESULTS.read_text("utf-8"))
    assert report.inserted(compare.DOCUMENT.read_text("utf-8")) == report.render(published)


def test_every_case_is_published_under_both_allocators() -> None:
    rows = json.loads(compare.RESULTS.read_text("utf-8"))["rows"]
    fields = ("allocator", "operator", "gradient", "channels", "layout", "contender")
    published = {(*(r[field] for field in fields), *r["size"]) for r in rows}
    expected = {
        (allocator, c.operator, c.gradient, c.channels, c.layout, contender, *c.size)
        for allocator in compare.ALLOCATORS
        for c in CASES
        for contender in OPERATORS[c.operator].contenders
    }
    assert expected <= published


def test_a_small_run_writes_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = compare.DOCUMENT.read_bytes()
    output = tmp_path / "new" / "tiny.json"
    arguments = ["--operators", "transfer_labels", "--size", "8x12", "--repetitions", "1"]
    compare.main([*arguments, "--output", str(output)])
    measured = json.loads(output.read_text("utf-8"))
    assert capsys.readouterr().out.strip() == report.render(measured)
    assert compare.DOCUMENT.read_bytes() == document
    where = measured["environment"]
    assert where["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", where["date"])
    cases = {(r["operator"], r["channels"], *r["size"]) for r in measured["rows"]}
    assert cases == {("transfer_labels", 64, 8, 12), ("transfer_labels", 256, 8, 12)}


@pytest.mark.parametrize(
    "reduced", [["--size", "8x12"], ["--repetitions", "1"], ["--operators", "contrast"]]
)
def test_a_reduced_run_never_replaces_the_published_one(
    reduced: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    published = compare.RESULTS.read_bytes()
    with pytest.raises(SystemExit):
        compare.main(reduced)
    assert "expected --output elsewhere than benchmarks/results/cpu.json" in capsys.readouterr().err
    assert compare.RESULTS.read_bytes() == published


def test_sizes_are_height_by_width() -> None:
    assert measure.parse_size("24x48") == (24, 48)


@pytest.mark.parametrize("text", ["24", "24x", "0x8", "24x48x2", "axb", "-1x2"])
def test_a_wrong_size_is_refused(text: str) -> None:
    sentence = re.escape(f"expected a size such as 128x256, got {text!r}.")
    with pytest.raises(argparse.ArgumentTypeError, match=sentence):
        measure.parse_size(text)
