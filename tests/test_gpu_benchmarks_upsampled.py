"""The GPU benchmark of upsampled cross-entropy where there is no GPU: cases, gate, goals, table."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.agreement import Disagreement
from benchmarks.gpu import cases, gate, measure, tables
from benchmarks.gpu.cases import ALIGNED, EAGER, FEATURES, LIBRARY, PASSES, UPSAMPLED, Case
from tests.still_clock import CPU, LIMITS, Still, of_one_device

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
