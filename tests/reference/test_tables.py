"""docs/results.md says what the stored numbers say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reference.experiments import tables
from reference.experiments.tables import (
    class_table,
    ingredient_table,
    main_table,
    render,
    rendered,
    replace_section,
)


def record(row: str, seed: int, miou: float) -> dict:
    return {
        "row": row, "seed": seed, "miou": miou, "iou": {"road": miou, "car": miou / 2},
        "share_ratio_max": 1.5, "share_ratio_min": 0.5, "coverage_end": None,
        "label_accuracy_end": None, "seconds": 12.4, "warnings": ["a"] if seed else [],
        "split": "test", "images": {"source": 3, "target": 4, "test": 5},
        "versions": {"torch": "2"}, "machine": {"cores": 2}, "code": "abc",
    }  # fmt: skip


SCORES = {
    "source_only_continued": (50.0, 52.0),
    "bicl": (60.0, 68.0),
    "without_entropy": (58.0, 67.0),
    "without_calibration": (61.0, 67.0),
    "without_bank": (61.0, 69.0),
}
SUMMARY = tables.summarise(
    [record(row, seed, s) for row, scores in SCORES.items() for seed, s in enumerate(scores)],
    target="toy",
    command="python -m reference.ablate",
)


def lines_of(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in cells}) == 1
    return {line[0]: line[1:] for line in cells}


def test_documents_say_what_the_stored_numbers_say():
    assert (tables.DOCS / "results.md").read_text(encoding="utf-8") == rendered(tables.DOCS)


def test_a_changed_number_is_noticed(tmp_path: Path):
    text = (tables.DOCS / "results.md").read_text(encoding="utf-8")
    changed = replace_section(text, "toy", "| BiCL | 99.9 |")
    (tmp_path / "results.md").write_text(changed, encoding="utf-8")
    assert rendered(tmp_path) != changed


def test_the_main_table_holds_mean_spread_seeds_and_paired_gain():
    lines = lines_of(main_table(SUMMARY))
    assert lines["row"][:6] == ["mean", "sd", "seed 0", "seed 1", "over control", "smallest"]
    assert lines["**BiCL**"] == [
        "64.0", "5.7", "60.0", "68.0", "+13.0", "+10.0", "1.5 1.5", "0.50 0.50", "0 1", "12",
    ]  # fmt: skip
    assert lines["source only, continued (control)"][4:6] == ["", ""]


def test_a_missing_seed_leaves_an_empty_cell():
    fewer = {
        **SUMMARY,
        "rows": [r for r in SUMMARY["rows"] if (r["row"], r["seed"]) != ("bicl", 1)],
    }
    line = lines_of(main_table(fewer))["**BiCL**"]
    assert line[:6] == ["60.0", "", "60.0", "", "+10.0", "+10.0"]


def test_ingredients_are_judged_by_every_seed():
    lines = lines_of(ingredient_table(SUMMARY))
    assert lines["BiCL without entropy"] == ["+1.5", "+2.0 +1.0", "worse than BiCL in every seed"]
    assert lines["BiCL without calibration"] == ["+0.0", "-1.0 +1.0", "no consistent difference"]
    assert lines["BiCL, gradient through prototypes of the batch"] == [
        "-1.0", "-1.0 -1.0", "better than BiCL in every seed",
    ]  # fmt: skip
    assert ingredient_table({**SUMMARY, "rows": SUMMARY["rows"][:4]}) == ""


def test_classes_are_averaged_over_seeds_and_absent_ones_left_out():
    lines = lines_of(class_table(SUMMARY))
    assert lines["car"] == ["25.5", "32.0"]
    assert set(lines) == {"class", "---", "road", "car"}


def test_a_section_is_replaced_between_its_markers_alone():
    text = "a\n<!-- generated: toy -->\nold\n<!-- end: toy -->\nb \\1\n"
    body = r"new \1 $0"
    expected = f"a\n<!-- generated: toy -->\n{body}\n<!-- end: toy -->\nb \\1\n"
    assert replace_section(text, "toy", body) == expected
    sentence = (
        "replace_section: expected text with one <!-- generated: sky --> before one "
        "<!-- end: sky -->, got 0 and 0 of them."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        replace_section(text, "sky", body)


def test_the_generated_part_names_command_versions_and_machine():
    text = render(SUMMARY)
    assert "`python -m reference.ablate`" in text
    assert "torch 2" in text and "cores 2" in text
    assert "3 source, 4 unlabelled target and 5 test images (split test)" in text
