"""The table per class: which rows it has, what it calls them, and that three files agree."""

from __future__ import annotations

import csv
import json
import re

import pytest
import torch

from reference.data.classes import NUM_CLASSES
from reference.evaluation.class_table import (
    BEST,
    DELTA,
    LAST,
    class_table,
    read_evaluation,
    write_class_table,
)
from reference.evaluation.evaluate import Scores
from reference.evaluation.protocol import Evaluation, Protocol


def evaluation(right: int, source: str = "gta5") -> Evaluation:
    """Class 0 has 100 pixels, `right` of them right, the others taken for class 1."""
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = right, 100 - right, 100
    return Evaluation(Scores(confusion), Protocol(source=source), 2, True)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| \n").split(" | ")]


def test_the_last_checkpoint_is_the_headline_and_the_best_is_called_what_it_is():
    table = class_table(
        evaluation(60),
        network="DeepLab dlv2",
        previous=evaluation(50),
        best=evaluation(80),
        references=False,
    )
    assert [row.name for row in table.rows] == [LAST, "previous evaluation", DELTA, BEST]
    assert BEST == "this run, best checkpoint (oracle-selected)"
    lines = table.markdown().splitlines()
    assert lines[:2] == [
        "IoU in percent, source gta5; DeepLab dlv2",
        "2 images at 1024x512; single scale; no flip; "
        "logits upsampled to full-size labels (align_corners=True)",
    ]
    assert lines[5].startswith(f"| **{LAST}** | 60.0 | 71.4 |  |")
    # 60 - 50, and 100 / 140 - 100 / 150 of a sidewalk.
    assert lines[7].startswith(f"| {DELTA} | +10.0 | +4.8 |  |")
    assert "| 65.7 | 65.7 | 65.7 | 80.0 |" in lines[5]


def test_published_rows_stand_below_with_their_place():
    table = class_table(evaluation(60), network="DeepLab dlv2")
    assert [row.name for row in table.rows][:3] == [LAST, "source only", "AdaptSegNet"]
    note = table.rows[-1].note
    assert note == "published, lslrh/CPSL; head dlv2_gn, best of its log"
    assert table.rows[1].means_percent["miou19"] == 36.6
    assert "pixel accuracy" not in table.rows[1].means_percent


def test_nothing_about_synthia_is_a_mean_over_19():
    table = class_table(evaluation(60, "synthia"), network="DeepLab dlv2")
    assert table.means == ("miou16", "miou13", "pixel accuracy")
    assert len(table.classes) == 16
    proca = table.rows[-1].means_percent
    assert proca["miou16"] == 53.0
    assert proca["miou13"] == pytest.approx(59.6, abs=0.1)
    for text in (table.markdown(), table.csv(), json.dumps(table.as_dict())):
        assert "miou19" not in text
        assert "terrain, truck, train" in text


def test_three_files_say_the_same(tmp_path):
    table = class_table(evaluation(60), network="DeepLab dlv2", previous=evaluation(50))
    write_class_table(tmp_path, table, stem="evaluation-000100")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation-000100.csv",
        "evaluation-000100.json",
        "evaluation-000100.md",
    ]
    held = json.loads((tmp_path / "evaluation-000100.json").read_text())
    assert held["evaluation"]["confusion"][0][:2] == [60, 40]
    text = (tmp_path / "evaluation-000100.csv").read_text().splitlines()
    assert text[:2] == [f"# {line}" for line in table.header]
    rows = list(csv.DictReader(text[2:]))
    assert [row["row"] for row in rows] == [row["name"] for row in held["rows"]]
    for ours, theirs in zip(rows, held["rows"], strict=True):
        for name, value in {**theirs["iou"], **theirs["means"]}.items():
            if value is None:
                assert ours[name] == ""
            else:
                assert float(ours[name]) == pytest.approx(value, abs=1e-4)
    markdown = (tmp_path / "evaluation-000100.md").read_text().splitlines()
    assert len(markdown) == 2 + 1 + 2 + len(rows)
    assert {len(cells(line)) for line in markdown[3:]} <= {24, 25}


def test_a_file_of_an_older_table_is_replaced(tmp_path):
    for right in (60, 70):
        write_class_table(tmp_path, class_table(evaluation(right), network="DeepLab dlv2"))
    assert json.loads((tmp_path / "classes.json").read_text())["rows"][0]["iou"]["road"] == 70


def test_an_evaluation_comes_back_from_the_file(tmp_path):
    written = Evaluation(
        evaluation(60).scores, Protocol((64, 96), "synthia", (1.0, 1.5), True), 7, False
    )
    write_class_table(tmp_path, class_table(written, network="DeepLab dlv2"))
    found = read_evaluation(tmp_path / "classes.json")
    assert torch.equal(found.scores.confusion, written.scores.confusion)
    assert (found.protocol, found.images, found.align_corners) == (written.protocol, 7, False)
    assert found.header == written.header


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "FileNotFoundError"),
        ("{", "JSONDecodeError"),
        ("{}", "KeyError"),
        ('{"evaluation": {"protocol": {"size": [1]}}}', "IndexError"),
    ],
)
def test_what_is_no_evaluation_is_refused(tmp_path, content, error):
    path = tmp_path / "classes.json"
    if content is not None:
        path.write_text(content)
    sentence = (
        f"read_evaluation: expected the JSON file of a table per class, got {path} ({error}). "
        "Hint: write_class_table writes it."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_evaluation(path)


def test_a_matrix_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "classes.json"
    write_class_table(tmp_path, class_table(evaluation(60), network="DeepLab dlv2"))
    held = json.loads(path.read_text())
    held["evaluation"]["confusion"] = [[1]]
    path.write_text(json.dumps(held))
    sentence = f"read_evaluation: expected a matrix of 19x19 classes in {path}, got shape (1, 1)."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_evaluation(path)


def test_evaluations_that_were_measured_otherwise_do_not_share_a_table():
    last, other = evaluation(60), evaluation(60, "synthia")
    sentence = (
        f"class_table: expected evaluations measured alike, got {last.header!r} and "
        f"{other.header!r}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        class_table(last, network="DeepLab dlv2", previous=other)
