"""The table per class: its rows, published ones where they apply, and three files that agree."""

import csv
import json

import pytest
import torch

from reference.data.classes import CITYSCAPES, ClassList
from reference.evaluation.class_table import (
    DELTA,
    LAST,
    ROWS,
    Row,
    class_table,
    published_rows,
    read_evaluation,
    write_class_table,
)
from reference.evaluation.protocol import Evaluation, Protocol, Scores
from tests.reference.small_networks import refuses

SYNTHIA = CITYSCAPES.means["miou16"]
OWN = ClassList("mine", tuple("abc"), ((0, 0, 0),) * 3, {"miou3": (0, 1, 2)})


def evaluation(
    right: int, source: str = "gta5", *, target: str = "Cityscapes", images: int = 500, **protocol
) -> Evaluation:
    """Class 0 has 100 pixels, `right` of them right, the others taken for class 1."""
    if source == "synthia":
        protocol.setdefault("labelled", SYNTHIA)
    how = Protocol(source=source, **protocol)
    confusion = torch.zeros(len(how.classes), len(how.classes), dtype=torch.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = right, 100 - right, 100
    return Evaluation(Scores(confusion), how, images, True, target)


def test_the_last_checkpoint_is_the_headline():
    last, before = evaluation(60), evaluation(50)
    table = class_table(last, network="DeepLab dlv2", previous=before, references=False)
    assert [row.name for row in table.rows] == [LAST, "previous evaluation", DELTA]
    lines = table.markdown().splitlines()
    assert lines[:3] == [
        "IoU in percent, source gta5, target Cityscapes; DeepLab dlv2",
        "500 images at 1024x512; single scale; no flip; "
        "logits upsampled to full-size labels (align_corners=True)",
        "miou19 is here over the 2 of 19 classes that occur",
    ]
    shown = {name: cells for name, *cells in (line.strip("| ").split("|") for line in lines[4:])}
    shown = {name.strip(): [cell.strip() for cell in cells] for name, cells in shown.items()}
    assert shown["road"] == ["60.0", "50.0", "+10.0"]
    # 100 / 140 - 100 / 150 of a sidewalk.
    assert shown["sidewalk"] == ["71.4", "66.7", "+4.8"]
    assert (shown["miou13"][0], shown["pixel accuracy"][0]) == ("65.7", "80.0")


def test_published_rows_stand_below_with_their_place():
    table = class_table(evaluation(60), network="DeepLab dlv2")
    assert [row.name for row in table.rows][:3] == [LAST, "source only", "AdaptSegNet"]
    assert table.rows[-1].note == "published, lslrh/CPSL; head dlv2_gn, best of its log"
    assert table.rows[1].means_percent["miou19"] == 36.6
    assert "pixel accuracy" not in table.rows[1].means_percent
    text = table.markdown().splitlines()
    assert "| source only (published, wasidennis/AdaptSegNet) " in text[-8]
    assert text[-8].endswith("|   36.6 |   40.5 |   45.3 |")
    # As wide as a terminal, but for the sentences above.
    assert max(map(len, text[len(table.header) :])) <= 100


@pytest.mark.parametrize("other", [
    evaluation(60, "toy"), evaluation(60, target="Foggy Cityscapes"), evaluation(60, images=3),
    evaluation(60, classes=OWN), evaluation(60, labelled=SYNTHIA),
    evaluation(60, "synthia", labelled=None),
], ids=["source", "target", "images", "classes", "fewer labels", "more labels"])  # fmt: skip
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
    assert text[:3] == [f"# {line}" for line in table.header]
    rows = list(csv.DictReader(text[3:]))
    assert [row["row"] for row in rows] == [row["name"] for row in held["rows"]]
    for ours, theirs in zip(rows, held["rows"], strict=True):
        for name, value in {**theirs["iou"], **theirs["means"]}.items():
            assert (ours[name] and float(ours[name])) == pytest.approx(
                "" if value is None else value, abs=1e-4
            )
    markdown = (tmp_path / "evaluation-000100.md").read_text().splitlines()
    assert len(markdown) == 3 + 1 + 2 + 19 + 4 + 1 + 2 + len(rows) - 3


@pytest.mark.parametrize("written", [
    evaluation(60, "synthia", size=(64, 96), scales=(1.0, 1.5), flip=True, window=(32, 48)),
    evaluation(60, "own", classes=OWN, target="mine"),
], ids=["synthia", "own"])  # fmt: skip
def test_an_evaluation_comes_back_from_the_file(tmp_path, written):
    write_class_table(tmp_path, class_table(written, network="DeepLab dlv2"))
    again = read_evaluation(tmp_path / "classes.json")
    assert torch.equal(again.scores.confusion, written.scores.confusion)
    assert again.protocol == written.protocol
    assert (again.images, again.align_corners, again.target) == (500, True, written.target)
    assert again.header == written.header


@pytest.mark.parametrize(
    "change",
    [lambda held: "{", lambda held: "[]", lambda held: held.clear(),
     lambda held: held.pop("images"),
     lambda held: held.update(confusion=[[1]]), lambda held: held["protocol"].update(size=[1])],
    ids=["no JSON", "a list", "an empty table", "no number", "a small matrix", "half a size"],
)  # fmt: skip
def test_what_is_no_evaluation_is_refused(tmp_path, change):
    path = tmp_path / "classes.json"
    sentence = f"read_evaluation: expected the JSON file of a table per class, got {path} ("
    with refuses(sentence):
        read_evaluation(path)
    write_class_table(tmp_path, class_table(evaluation(60), network="DeepLab dlv2"))
    held = json.loads(path.read_text())
    other = change(held["evaluation"])
    path.write_text(other if isinstance(other, str) else json.dumps(held))
    with refuses(sentence):
        read_evaluation(path)


ALL = [(source, row) for source, rows in ROWS.items() for row in rows]


def agrees(row: Row) -> bool:
    values = row.iou_percent.values()
    return abs(sum(values) / len(values) - row.means_percent[f"miou{len(values)}"]) <= 0.1


@pytest.mark.parametrize(("source", "row"), ALL, ids=lambda value: getattr(value, "name", value))
def test_a_row_is_whole_and_its_mean_is_the_published_one(source, row):
    expected = CITYSCAPES.means[{"gta5": "miou19", "synthia": "miou16"}[source]]
    assert tuple(row.iou_percent) == expected
    assert all(0 <= value <= 100 for value in row.iou_percent.values())
    assert agrees(row)
    misread = {**row.iou_percent, 0: row.iou_percent[0] - 18.0}
    assert not agrees(row._replace(iou_percent=misread))
