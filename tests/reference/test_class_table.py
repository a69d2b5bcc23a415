"""The table per class: its rows, published ones where they apply, and three files that agree."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
import torch

from reference.data.classes import CITYSCAPES, ClassList
from reference.evaluation.class_table import (
    DELTA,
    LAST,
    class_table,
    read_evaluation,
    write_class_table,
)
from reference.evaluation.protocol import Evaluation, Protocol
from reference.evaluation.published import ROWS, Published, published_rows
from reference.evaluation.scores import Scores

SYNTHIA = CITYSCAPES.means["miou16"]


def evaluation(
    right: int, source: str = "gta5", *, target: str = "Cityscapes", **protocol
) -> Evaluation:
    """Class 0 has 100 pixels, `right` of them right, the others taken for class 1."""
    if source == "synthia":
        protocol.setdefault("labelled", SYNTHIA)
    how = Protocol(source=source, **protocol)
    confusion = torch.zeros(len(how.classes), len(how.classes), dtype=torch.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = right, 100 - right, 100
    return Evaluation(Scores(confusion), how, 2, True, target)


def test_the_last_checkpoint_is_the_headline():
    table = class_table(
        evaluation(60), network="DeepLab dlv2", previous=evaluation(50), references=False
    )
    assert [row.name for row in table.rows] == [LAST, "previous evaluation", DELTA]
    lines = table.markdown().splitlines()
    assert lines[:2] == [
        "IoU in percent, source gta5, target Cityscapes; DeepLab dlv2",
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
    assert table.rows[-1].note == "published, lslrh/CPSL; head dlv2_gn, best of its log"
    assert table.rows[1].means_percent["miou19"] == 36.6
    assert "pixel accuracy" not in table.rows[1].means_percent


OWN = ClassList("mine", tuple("abc"), ((0, 0, 0),) * 3, {"miou3": (0, 1, 2)})


@pytest.mark.parametrize(
    "other",
    [
        evaluation(60, "toy"),
        evaluation(60, target="Foggy Cityscapes"),
        evaluation(60, classes=OWN),
        evaluation(60, labelled=SYNTHIA),
        evaluation(60, "synthia", labelled=None),
    ],
    ids=["source", "target", "classes", "fewer labels", "more labels"],
)
def test_published_rows_apply_to_their_sets_and_classes_alone(other):
    assert published_rows(other) == ()
    assert len(class_table(other, network="DeepLab").rows) == 1


def test_nothing_about_synthia_is_a_mean_over_19():
    table = class_table(evaluation(60, "synthia"), network="DeepLab dlv2")
    assert table.means == ("miou16", "miou13", "pixel accuracy")
    assert len(table.classes) == 16
    proca = table.rows[-1].means_percent
    assert proca["miou16"] == 53.0
    assert proca["miou13"] == pytest.approx(59.6, abs=0.1)
    for text in (table.markdown(), table.csv(), json.dumps(table.as_dict()["rows"])):
        assert "miou19" not in text


def test_three_files_say_the_same(tmp_path):
    table = class_table(evaluation(60), network="DeepLab dlv2", previous=evaluation(50))
    write_class_table(tmp_path, table, stem="evaluation-000100")
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


@pytest.mark.parametrize(
    "written",
    [
        evaluation(60, "synthia", size=(64, 96), scales=(1.0, 1.5), flip=True, window=(32, 48)),
        evaluation(60, "own", classes=OWN, target="mine"),
    ],
    ids=["synthia", "own"],
)
def test_an_evaluation_comes_back_from_the_file(tmp_path, written):
    write_class_table(tmp_path, class_table(written, network="DeepLab dlv2"))
    again = read_evaluation(tmp_path / "classes.json")
    assert torch.equal(again.scores.confusion, written.scores.confusion)
    assert again.protocol == written.protocol
    assert (again.images, again.align_corners, again.target) == (2, True, written.target)
    assert again.header == written.header


@pytest.mark.parametrize(
    "content", [None, "{", "{}", '{"evaluation": {"protocol": {"size": [1]}}}']
)
def test_what_is_no_evaluation_is_refused(tmp_path, content):
    path = tmp_path / "classes.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        ValueError, match=r"^read_evaluation: expected the JSON file of a table per"
    ):
        read_evaluation(path)


def test_a_matrix_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "classes.json"
    write_class_table(tmp_path, class_table(evaluation(60), network="DeepLab dlv2"))
    held = json.loads(path.read_text())
    held["evaluation"]["confusion"] = [[1]]
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"a matrix of 19x19 classes in .*, got shape \(1, 1\)\.$"):
        read_evaluation(path)


def test_evaluations_that_were_measured_otherwise_do_not_share_a_table():
    last, other = evaluation(60), evaluation(60, "synthia")
    sentence = (
        f"class_table: expected evaluations measured alike, got {last.header!r} and "
        f"{other.header!r}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        class_table(last, network="DeepLab dlv2", previous=other)


# Published rows.

ALL = [(source, row) for source, rows in ROWS.items() for row in rows]


def agrees(row: Published) -> bool:
    return abs(sum(row.iou_percent) / len(row.iou_percent) - row.miou) <= 0.1


@pytest.mark.parametrize(("source", "row"), ALL, ids=lambda value: getattr(value, "name", value))
def test_a_row_is_whole_and_its_mean_is_the_published_one(source, row):
    assert len(row.iou_percent) == {"gta5": 19, "synthia": 16}[source] == len(row.by_class)
    assert all(0 <= value <= 100 for value in row.iou_percent)
    assert agrees(row)


def test_a_misread_number_is_noticed():
    row = ROWS["gta5"][0]
    assert not agrees(replace(row, iou_percent=(57.8, *row.iou_percent[1:])))


def test_synthia_rows_leave_out_what_synthia_has_not():
    labels = ROWS["synthia"][0].by_class
    assert {9, 14, 16}.isdisjoint(labels)
    assert (labels[10], labels[18]) == (85.9, 54.8)
