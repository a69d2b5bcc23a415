"""The benchmarks for a GPU where there is none: bounds, rows with a clock that is none, tables."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.agreement import Disagreement
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import bounds, cases, gate, measure, store, tables
from benchmarks.gpu.cases import (
    ALIGNED,
    BOTH,
    COMPILED,
    EAGER,
    FEATURES,
    LIBRARY,
    PASSES,
    UPSAMPLED,
    Case,
)
from tests.launching import needs_triton
from tests.still_clock import CPU, LIMITS, TINY, Still, of_one_device


def test_floor_bytes_are_one_read_and_one_write() -> None:
    size = 262144, 256, "bfloat16", 262144
    features = 262144 * 256 * 2
    assert bounds.floor_bytes("contrast", "forward", *size) == features + 262144 * 12
    assert bounds.floor_bytes("contrast", "backward", *size) == 2 * features + 262144 * 12
    assert bounds.floor_bytes("class_prototypes", "forward", *size) == features + 262144 * 8
    assert bounds.floor_bytes("class_prototypes", "backward", *size) == features + 262144 * 8
    assert bounds.floor_bytes("transfer_labels", "forward", *size) == features + 262144 * 12


def test_every_pass_has_a_bound() -> None:
    passes = {(operator, direction) for operator, some in PASSES.items() for direction in some}
    assert passes == set(bounds.TRAFFIC) == set(bounds.PRODUCTS)
    mixes = {key: traffic.mix for key, traffic in bounds.TRAFFIC.items()}
    assert mixes["contrast", "forward"] == "read"
    assert mixes["contrast", BOTH] == "copy"
    assert mixes["class_prototypes", "backward"] == "write"


@pytest.mark.parametrize(
    ("dtype", "precision", "mode", "forward", "backward"),
    [
        ("bfloat16", "highest", "16-bit", 2, 5),
        ("bfloat16", "medium", "16-bit", 1, 2),
        ("float32", "highest", "ieee", 1, 2),
        ("float32", "high", "tf32", 3, 6),
        ("float32", "medium", "tf32", 1, 2),
    ],
)
def test_products_are_counted_as_often_as_they_are_taken(
    dtype: str, precision: str, mode: str, forward: int, backward: int
) -> None:
    assert bounds.dot_mode(dtype, precision) == mode
    # 76 channels are padded to 80, 19 classes to 32.
    once = 2 * 100 * 80 * 32
    call = 100, 76, 19, dtype, precision
    assert bounds.padded_flops("contrast", "forward", *call) == forward * once
    assert bounds.padded_flops("contrast", "backward", *call) == backward * once


def test_the_larger_time_binds() -> None:
    assert bounds.bound(4_000_000, 1, 4e12, 1e15) == (1.0, "bandwidth")
    assert bounds.bound(1, 3_000_000_000, 4e12, 1e15) == (3.0, "products")


def test_many_classes_are_bound_by_products() -> None:
    few = Case("contrast", (2, 160, 160), 256, 19, "bfloat16", "highest", "NCHW", False)
    assert measure.bound_of(few, "forward", LIMITS).binds == "bandwidth"
    assert measure.bound_of(replace(few, classes=150), "forward", LIMITS).binds == "products"


def test_goals_have_the_sizes_that_were_asked_for() -> None:
    asked = {(c.pixels, c.channels, c.classes) for c in cases.cases() if c.goal}
    assert asked == {(262144, 256, 19), (262144, 720, 19), (65536, 2048, 19)}
    rest = [c for c in cases.cases() if not c.goal and c.operator in FEATURES]
    others = {(c.pixels, c.channels, c.classes) for c in rest}
    assert {(51200, 256, 19), (14400, 2048, 19), (51200, 256, 150), (51200, 256, 190)} == others
    for case in cases.cases():
        assert len([c for c in cases.cases() if c == case]) == 1
    goals = [c for c in cases.cases() if c.goal]
    assert {(c.dtype, c.precision, c.layout) for c in goals} == {
        (*mode, layout) for mode in cases.MODES for layout in cases.LAYOUTS
    }


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operator", FEATURES)
def test_a_case_becomes_a_row_per_pass(operator: str, dtype: str, layout: str) -> None:
    case = replace(TINY, operator=operator, dtype=dtype, layout=layout)
    features = cases.build(case, CPU).features
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert features.is_contiguous(memory_format=memory)
    rows = measure.rows(Still(), case, CPU, LIMITS, compiled=False)
    assert [row["pass"] for row in rows] == list(PASSES[operator])
    for row in rows:
        assert "failure" not in row, row
        assert row["time_us"] == row["eager_us"] == 100
        assert (row["speedup_over_eager"], row["speedup_over_compiled"]) == (1, None)
        assert row["peak_mib"] == row["peak_mib_eager"] == 3
        assert set(row["errors"]) == {LIBRARY, EAGER}
    assert json.loads(json.dumps(rows)) == rows


def test_a_compiled_contender_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    (row, *_) = measure.rows(Still(), TINY, CPU, LIMITS, compiled=True)
    assert row["compiled_us"] == 100 and COMPILED in row["errors"]


def test_a_wrong_result_is_a_failure_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cases.LIBRARY_FUNCTIONS["contrast"]
    wrong = {"contrast": lambda given: {"loss": 1.001 * right(given)["loss"]}}
    monkeypatch.setattr(cases, "LIBRARY_FUNCTIONS", wrong)
    rows = measure.rows(Still(), TINY, CPU, LIMITS, compiled=False)
    assert all(row["failure"].endswith("got an error of 1.00e-03.") for row in rows)
    assert all("time_us" not in row for row in rows)
    assert tables.verdict(rows[0]) == "missed: a result"


def test_a_contender_that_is_wrong_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cases.EAGER_FUNCTIONS["contrast"]
    wrong = {**cases.functions("contrast", False), EAGER: lambda x: {"loss": 2 * right(x)["loss"]}}
    monkeypatch.setattr(measure, "functions", lambda *_: wrong)
    (row, *_) = measure.rows(Still(), TINY, CPU, LIMITS, compiled=False)
    assert row["time_us"] == 100 and row["eager_us"] is None
    assert "eager: expected loss within 1e-04" in row["failure_eager"]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("loss", lambda t: t * 1.001, "expected loss within 1e-04, got an error of 1.00e-03"),
        ("loss", lambda t: t * torch.nan, "got an error of nan"),
        ("loss", lambda t: t[None], "expected loss of shape"),
        ("gradient of features", lambda t: 0 * t, "got an error of 1.00e[+]00"),
    ],
)
def test_the_gate_finds_a_wrong_result(name: str, change: Any, sentence: str) -> None:
    inputs = cases.asking(cases.build(TINY, CPU), "backward")
    results = gate.outcome(cases.LIBRARY_FUNCTIONS["contrast"], "contrast", inputs)
    expected = gate.reference(TINY, inputs, "backward")
    assert gate.check(results, expected, LIBRARY, TINY) < gate.EXACT
    with pytest.raises(Disagreement, match=sentence):
        gate.check({**results, name: change(results[name])}, expected, LIBRARY, TINY)
    with pytest.raises(Disagreement, match=r"expected .*, got"):
        gate.check({}, expected, LIBRARY, TINY)


def test_the_step_is_held_against_empty_launches() -> None:
    own, eager = measure.step_rows(Still(), CPU, LIMITS, side=6)
    assert (own["contender"], eager["contender"]) == (LIBRARY, EAGER)
    assert own["empty_launches_us"] == 6 and own["over_empty_launches"] == pytest.approx(16.67)
    assert own["shape"] == [2, 76, 6, 6]


@pytest.fixture
def measured() -> dict[str, Any]:
    """One device's numbers, of a clock that is none."""
    some = TINY, replace(TINY, precision="medium"), replace(TINY, goal=False)
    rows = [r for one in some for r in measure.rows(Still(), one, CPU, LIMITS, False)]
    return {**of_one_device(rows), "step": measure.step_rows(Still(), CPU, LIMITS, side=6)}


def test_the_tables_show_every_row(measured: dict[str, Any]) -> None:
    text = tables.render(measured)
    table = [line for line in text.splitlines() if line.startswith("| contrast")]
    assert len(table) == 6
    cell = "100; 0.00 of bandwidth; 1.00x; -; 3.00"
    missed = "missed: share of bound, eager, torch.compile"
    wrong = f"float32, highest: {missed}; float32, medium: {missed}"
    where = "| contrast | forward | 96 x 16 | 5 | NCHW"
    assert table[0] == f"{where} | {cell} | {cell} | {wrong} |"
    assert table[3] == f"{where} | {cell} |"
    assert "read 4.00, write 3.00, copy 3.50 TB/s; 16-bit 800, tf32 400, ieee 50 TFLOP/s" in text
    assert "Time ran out before the last case." in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "met"),
        ({"fraction_of_bound": 0.849}, "missed: share of bound"),
        ({"speedup_over_eager": 4.9}, "missed: eager"),
        ({"speedup_over_compiled": None}, "missed: torch.compile"),
        ({"pass": "backward", "peak_mib": 111.0}, "missed: memory"),
        ({"pass": "backward", "peak_mib": 109.0}, "met"),
    ],
)  # fmt: skip
def test_a_goal_is_met_or_missed(changes: dict[str, Any], expected: str) -> None:
    row = {"operator": "contrast", "pass": "forward", "peak_mib": 900.0, "gradient_mib": 100.0}
    row |= {"fraction_of_bound": 0.85, "speedup_over_eager": 5.0, "speedup_over_compiled": 2.0}
    assert tables.verdict({**row, **changes}) == expected


def test_a_file_is_always_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "gpu.json"
    record = command.Record(path, False, {"device": "x"})
    record.add(rows=[{"a": 1}])
    record.add(rows=[{"a": 2}], complete=True)
    stored = json.loads(path.read_text("utf-8"))
    assert stored["rows"] == [{"a": 1}, {"a": 2}] and stored["complete"]
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record.add(rows=[{"a": 3}])
    assert json.loads(path.read_text("utf-8")) == stored
    assert [p.name for p in path.parent.iterdir()] == ["gpu.json"]


def test_devices_have_files_of_their_own() -> None:
    assert store.path_of("NVIDIA H200 SXM5 (141GB)").name == "nvidia-h200-sxm5-141gb.json"
    assert store.published() == [
        json.loads(p.read_text("utf-8"))
        for p in sorted(store.RESULTS.glob("*.json"))
        if not p.name.startswith("cpu")
    ]


def test_the_document_shows_what_is_stored() -> None:
    assert tables.shown() == tables.render_all(store.published())
    assert tables.render_all([]) == "Not measured on a GPU."


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--minutes", "8"]) == 0
    assert capsys.readouterr().out == f"{command.NO_DEVICE}\n"


def test_the_command_line() -> None:
    options = command.parser().parse_args(["--minutes", "0.5", "--operators", "contrast"])
    assert options.minutes == 0.5
    assert {case.operator for case in command.chosen(options.operators)} == {"contrast"}
    for text in ("0", "-1", "nan", "tea"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected minutes above 0, got"):
            command.positive(text)


@needs_triton
@pytest.mark.parametrize("mix", ["read", "write", "copy"])
def test_a_probe_compiles_for_a_gpu(mix: str) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from benchmarks.gpu.probes import WARPS, stream_kernel

    constants = {"READS": mix != "write", "WRITES": mix != "read", "BLOCK": 4096}
    signature = {"from_ptr": "*fp32", "into_ptr": "*fp32", "count": "i32"}
    signature |= dict.fromkeys(constants, "constexpr")
    # Pointers and the count as torch's allocator and a power of two make them.
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(3)}
    source = ASTSource(stream_kernel, signature, constants, aligned)
    found = triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": WARPS})
    assert ("ld.global" in found.asm["ptx"]) == (mix != "write")
    assert ".v4." in found.asm["ptx"]


FINER = Case(UPSAMPLED, (2, 3, 5), 6, 6, "float32", "highest", "NCHW", False, (12, 17))


@pytest.mark.parametrize("operator", [UPSAMPLED, ALIGNED])
def test_finer_labels_are_read_once_and_nothing_else_is_as_fine(operator: str) -> None:
    case = replace(FINER, operator=operator, images=(2, 128, 256), label_size=(512, 1024))
    logits, labels = 2 * 128 * 256 * 6 * 4, 2 * 512 * 1024 * 8
    least = measure.bound_of(case, "forward", LIMITS)
    assert least == (pytest.approx(1e6 * (logits + labels) / 4e12), "bandwidth")
    least = measure.bound_of(case, "backward", LIMITS)
    assert least == (pytest.approx(1e6 * (2 * logits + labels) / 3.5e12), "bandwidth")


def test_logits_are_upsampled_at_the_sizes_that_were_asked_for() -> None:
    finer = [c for c in cases.cases() if c.operator not in FEATURES]
    found = {(c.operator, c.dtype, c.images[1:], c.labels[1:], c.channels) for c in finer}
    sizes = [((128, 256), (512, 1024)), ((91, 91), (730, 730))]
    assert found == {
        (operator, dtype, *size, classes)
        for operator in (UPSAMPLED, ALIGNED)
        for dtype in ("float32", "bfloat16")
        for size in sizes
        for classes in (19, 150)
    }
    assert len(finer) == len(found) and all(c.channels == c.classes for c in finer)
    assert "C=19, labels 512x1024, bfloat16" in str(finer[0])


def test_labels_are_finer_than_logits() -> None:
    inputs = cases.build(replace(FINER, dtype="bfloat16"), CPU)
    assert inputs.features.shape == (2, 6, 3, 5) and inputs.features.dtype == torch.bfloat16
    assert inputs.labels.shape == FINER.labels == (2, 12, 17)
    assert set(inputs.labels.unique().tolist()) == {*range(6), 255}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("operator", [UPSAMPLED, ALIGNED])
def test_finer_labels_become_a_row_per_pass(operator: str, dtype: str) -> None:
    case = replace(FINER, operator=operator, dtype=dtype)
    rows = measure.rows(Still(), case, CPU, LIMITS, compiled=False)
    assert [row["pass"] for row in rows] == list(PASSES[operator])
    for row in rows:
        assert "failure" not in row, row
        assert (row["images"], row["labels"]) == ([2, 3, 5], [2, 12, 17])
        assert row["peak_mib"] == row["peak_mib_eager"] == 3
        assert set(row["errors"]) == {LIBRARY, EAGER}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("operator", "other"), [(UPSAMPLED, ALIGNED), (ALIGNED, UPSAMPLED)])
def test_the_gate_tells_how_corners_lie(operator: str, other: str, dtype: str) -> None:
    case = replace(FINER, operator=operator, dtype=dtype)
    inputs = cases.asking(cases.build(case, CPU), "backward")
    expected = gate.reference(case, inputs, "backward")
    assert set(expected) == {"loss", "gradient of features"}
    for who, function in cases.functions(operator, False).items():
        gate.check(gate.outcome(function, operator, inputs), expected, who, case)
    for who, function in cases.functions(other, False).items():
        wrong = gate.outcome(function, other, inputs)
        with pytest.raises(Disagreement, match=r"expected .* within .*, got an error of"):
            gate.check({**expected, "loss": wrong["loss"]}, expected, LIBRARY, case)
        with pytest.raises(Disagreement, match="expected gradient of features within"):
            gate.check({**wrong, "loss": expected["loss"]}, expected, who, case)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "met"),
        ({"fraction_of_bound": 0.1, "speedup_over_compiled": None}, "met"),
        ({"speedup_over_eager": 2.9}, "missed: eager"),
        ({"speedup_over_eager": None}, "missed: eager"),
        ({"peak_mib": 600.0}, "missed: memory"),
        ({"peak_mib": 600.0, "dtype": "float32"}, "met"),
    ],
)  # fmt: skip
def test_upsampling_is_asked_to_be_fast_and_small(changes: dict[str, Any], expected: str) -> None:
    row = {"operator": ALIGNED, "labels": [2, 1024, 1024], "C": 150, "dtype": "bfloat16"}
    row |= {"speedup_over_eager": 3.0, "peak_mib": 599.0}
    assert tables.upsampled_mib(row) == 600
    assert tables.verdict({**row, **changes}) == expected


def test_upsampling_has_a_table_with_every_memory() -> None:
    found = measure.rows(Still(), replace(FINER, operator=ALIGNED), CPU, LIMITS, False)
    failed = {**measure.described(FINER, "forward"), "failure": "wrong"}
    text = tables.render(of_one_device([*found, failed]))
    lines = [line for line in text.splitlines() if line.startswith("| 3x5 to 12x17 | 6 | float32")]
    numbers = "100 | 0.00 | 1.00x | - | 3.00 | 3.00 | - | 0.01 | missed: eager, memory |"
    assert [line.partition("float32 | ")[2] for line in lines] == [
        f"aligned | forward | {numbers}",
        f"aligned | backward | {numbers}",
        "not aligned | forward | - | - | - | - | - | - | - | 0.01 | missed: a result |",
    ]
    assert "Without a goal:" not in text
