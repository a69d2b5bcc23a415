"""What a second thread saves: small cases are measured, and the document says what is stored."""

import json
from dataclasses import replace

import torch

from benchmarks import threads
from benchmarks.operators import LIBRARY, OURS
from benchmarks.report import inserted

SMALL = [replace(case, size=(6, 8)) for case in threads.CASES[:2]]


def test_small_cases_are_measured_with_both_numbers_of_threads() -> None:
    before = torch.get_num_threads()
    rows = list(threads.measured(SMALL, 1))
    assert torch.get_num_threads() == before
    assert {row["contender"] for row in rows} <= {*OURS}
    own = [row for row in rows if row["contender"] == LIBRARY]
    assert [(row["channels"], row["threads"]) for row in own] == [
        (64, 1),
        (64, 2),
        (256, 1),
        (256, 2),
    ]


def test_a_line_says_what_the_second_thread_gains() -> None:
    case = {**threads.CASES[0].__dict__, "contender": LIBRARY}
    rows = [{**case, "threads": n, "time_ms": ms} for n, ms in ((1, 9.0), (2, 6.0))]
    stored = {"environment": threads.environment(), "repetitions": 1, "rows": rows}
    line = threads.render(stored).splitlines()[-1]
    name = "contrast, gradient: features, D = 64, 128x256"
    assert line == f"| {name} | protocontrast | 9.00 | 6.00 | 1.50x |"


def test_the_document_says_what_is_stored() -> None:
    shown = inserted(threads.DOCUMENT.read_text("utf-8"), threads.BEGIN, threads.END)
    if threads.STORED.is_file():
        assert shown == threads.render(json.loads(threads.STORED.read_text()))
    else:
        assert shown == "Not measured yet."
