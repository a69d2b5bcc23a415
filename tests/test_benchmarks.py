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

from benchmarks import compare, measure, table
from benchmarks.agreement import Disagreement, Tolerance, check, check_all, reference, tolerance_of
from benchmarks.cases import CASES, Case
from benchmarks.inputs import Inputs, build
from benchmarks.operators import COMPILED, LIBRARY, OPERATORS, run, with_compiled

ROOT = Path(__file__).resolve().parents[1]
EXACT = Tolerance(1e-5)
TINY = Case("contrast", "features + prototypes", 16, size=(6, 8))
MIB = 1024 * 1024


def test_every_benchmark_runs() -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--map-size", "8x12", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = sum(len(OPERATORS[case.operator].contenders) for case in CASES)
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_contenders_agree_on_both_layouts(operator: str, layout: str, dtype: str) -> None:
    gradient = "none" if operator == "transfer_labels" else "features"
    if dtype == "bfloat16" and operator not in {c.operator for c in CASES if c.dtype == dtype}:
        pytest.skip("not run in bfloat16")
    case = Case(operator, gradient, 16, layout, size=(6, 8), dtype=dtype)
    inputs = build(case)
    wanted = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert inputs.features.is_contiguous(memory_format=wanted)
    check_all(case, inputs, OPERATORS[operator])


def test_inputs_are_as_the_document_says() -> None:
    inputs = build(Case("bidirectional step", "both features", 16, size=(64, 64)))
    assert 0.27 < (inputs.labels == 255).float().mean() < 0.33
    assert inputs.labels[inputs.labels != 255].unique().tolist() == list(range(19))
    asked = {name for name, value in inputs._asdict().items() if value.requires_grad}
    assert asked == {"features", "target"}


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
    check(results, expected, "who", EXACT)
    with pytest.raises(Disagreement, match=sentence):
        check(spoilt(results, name, change(results[name])), expected, "who", EXACT)


def test_the_gate_finds_a_single_wrong_label() -> None:
    labels = torch.zeros(4, 5, dtype=torch.int64)
    wrong = labels.clone()
    wrong[3, 4] = 1
    with pytest.raises(Disagreement, match=r"who: expected equal labels, got 1 others\."):
        check({"labels": wrong}, {"labels": labels}, "who", EXACT)
    few = Tolerance(1e-5, strays=0.05)
    check({"labels": wrong}, {"labels": labels}, "who", few)
    wrong[0, 0] = 1
    with pytest.raises(Disagreement, match=r"who: expected equal labels, got 2 others\."):
        check({"labels": wrong}, {"labels": labels}, "who", few)


def test_a_rounded_composition_may_stray_a_little_and_never_to_nan() -> None:
    truth = torch.linspace(-1, 1, 100, dtype=torch.float64)
    few = Tolerance(1e-2, strays=0.02)
    value = truth + 0.005
    value[:2] += 1
    assert check({"gradient": value}, {"gradient": truth}, "who", few) == pytest.approx(1.005)
    value[2] += 1
    with pytest.raises(Disagreement, match=r"who: expected gradient within 1e-02, got an error"):
        check({"gradient": value}, {"gradient": truth}, "who", few)
    value = truth.clone()
    value[0] = torch.nan
    with pytest.raises(Disagreement, match=r"got an error of nan"):
        check({"gradient": value}, {"gradient": truth}, "who", few)


def test_the_library_is_held_to_less_error_than_compositions() -> None:
    case = Case("contrast", "features", 16, dtype="bfloat16")
    ours, others = tolerance_of(case, LIBRARY), tolerance_of(case, "eager")
    assert ours.error < others.error and ours.strays == 0 < others.strays
    assert tolerance_of(TINY, LIBRARY) == tolerance_of(TINY, "eager") == Tolerance(1e-5)


def test_nothing_is_measured_before_all_agree() -> None:
    calls = []
    right = OPERATORS["contrast"]

    def warmer(given: Inputs) -> dict[str, Tensor]:
        calls.append("warmer")
        return {"loss": 1.01 * right.contenders["eager"](given)["loss"]}

    operator = right._replace(contenders=right.contenders | {"warmer": warmer})
    with pytest.raises(Disagreement, match="6x8, NCHW, float32, warmer: expected loss"):
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


def test_a_small_run_writes_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = table.DOCUMENT.read_bytes()
    output = tmp_path / "new" / "tiny.json"
    arguments = ["--only", "transfer_labels", "--size", "8x12", "--quick", "--no-compile"]
    compare.main([*arguments, "--output", str(output)])
    measured = json.loads(output.read_text("utf-8"))
    assert capsys.readouterr().out.strip() == table.render(measured)
    assert table.DOCUMENT.read_bytes() == document
    where = measured["environment"]
    assert where["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", where["date"])
    assert re.fullmatch(r"([0-9a-f]{12}|unknown)( with changes)?", where["commit"])
    cases = {(r["operator"], r["channels"], *r["size"]) for r in measured["rows"]}
    assert cases == {("transfer_labels", channels, 8, 12) for channels in (64, 76, 256)}
    assert {row["allocator"] for row in measured["rows"]} <= set(compare.ALLOCATORS)


@pytest.mark.parametrize(
    "reduced",
    [
        ["--size", "8x12"],
        ["--repetitions", "1"],
        ["--operators", "contrast"],
        ["--only", "sepico"],
        ["--quick"],
        ["--no-compile"],
    ],
)
def test_a_reduced_run_never_replaces_the_published_one(
    reduced: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    published = table.RESULTS.read_bytes()
    with pytest.raises(SystemExit):
        compare.main([*reduced, "--output", str(table.RESULTS)])
    assert "expected --output elsewhere than benchmarks/results/cpu.json" in capsys.readouterr().err
    assert table.RESULTS.read_bytes() == published


@pytest.mark.slow
def test_torch_compile_takes_part_where_there_is_a_compiler() -> None:
    if compare.compiler() == "none":
        pytest.skip("no C++ compiler")
    case = Case("transfer_labels", "none", 16, size=(6, 8))
    found = measure.rows(case, with_compiled(OPERATORS[case.operator]), repetitions=1)
    first = {row["contender"]: row["first_call_s"] for row in found}
    assert first[COMPILED] > first["eager"]


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compare.shutil, "which", lambda name: None)
    assert compare.compiler() == "none"


def test_sizes_are_height_by_width() -> None:
    assert measure.parse_size("24x48") == (24, 48)


@pytest.mark.parametrize("text", ["24", "24x", "0x8", "24x48x2", "axb", "-1x2"])
def test_a_wrong_size_is_refused(text: str) -> None:
    sentence = re.escape(f"expected a size such as 128x256, got {text!r}.")
    with pytest.raises(argparse.ArgumentTypeError, match=sentence):
        measure.parse_size(text)
