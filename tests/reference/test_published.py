"""Published rows: each is whole, and its mean is the published one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reference.evaluation.published import ROWS, Published

CLASSES = {"gta5": 19, "synthia": 16, "toy": 0}
ALL = [(source, row) for source, rows in ROWS.items() for row in rows]


def agrees(row: Published) -> bool:
    return abs(sum(row.iou_percent) / len(row.iou_percent) - row.miou) <= 0.1


@pytest.mark.parametrize(("source", "row"), ALL, ids=lambda value: getattr(value, "name", value))
def test_a_row_is_whole_and_its_mean_is_the_published_one(source, row):
    assert len(row.iou_percent) == CLASSES[source] == len(row.by_class(source))
    assert all(0 <= value <= 100 for value in row.iou_percent)
    assert agrees(row)
    owner, _, name = row.repository.partition("/")
    assert owner
    assert name


def test_there_are_rows_for_both_sources_and_their_names_differ():
    assert {source: len(rows) for source, rows in ROWS.items()} == {
        "gta5": 8,
        "synthia": 1,
        "toy": 0,
    }
    assert len({(source, row.name) for source, row in ALL}) == len(ALL)


def test_a_misread_number_is_found():
    row = ROWS["gta5"][0]
    assert not agrees(replace(row, iou_percent=(57.8, *row.iou_percent[1:])))


def test_synthia_rows_leave_out_what_synthia_has_not():
    labels = ROWS["synthia"][0].by_class("synthia")
    assert {9, 14, 16}.isdisjoint(labels)
    assert labels[10] == 85.9
    assert labels[18] == 54.8
