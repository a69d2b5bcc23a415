"""What binds C: small cases are measured, and a line says what they come to."""

from dataclasses import replace

import pytest

from benchmarks import limits
from benchmarks.report import inserted
from protocontrast.native import library

SMALL = [replace(case, size=(6, 8)) for case in limits.CASES]


@pytest.mark.skipif(bool(library.missing()), reason="the library in C is not built here")
def test_small_cases_are_measured_within_and_without_c() -> None:
    before = library.loaded()
    rows = list(limits.measured(SMALL, 2))
    assert library.loaded() is before
    assert [row["channels"] for row in rows] == [case.channels for case in SMALL]
    assert all(0 < row["within"] < row["whole"] for row in rows)
    pairs = 2 * 6 * 8 * 64 * 19
    assert rows[0]["products"] == 2 * pairs
    assert rows[-1]["products"] == 0


@pytest.mark.skipif(bool(library.missing()), reason="the library in C is not built here")
def test_a_processor_reaches_some_rate() -> None:
    assert 1e3 < limits.peak(1000) < 1e9


def test_a_line_says_how_near_c_is_to_its_floors() -> None:
    case = {**limits.CASES[0].__dict__, "whole": 8.0, "within": 6.0, "copy": 1.5, "products": 3e6}
    where = {
        "device": "a processor", "native": "usable: avx2", "load_average": 0.0, "torch": "2",
        "commit": "0", "date": "now",
    }  # fmt: skip
    line = limits.render([case], 2e6, where).splitlines()[-1]
    name = "contrast, gradient: features, D = 64, 128x256"
    assert line == f"| {name} | 8.00 | 6.00 | 1.50 | 1.50 | 50% |"


def test_the_document_has_a_place_for_it() -> None:
    assert inserted(limits.DOCUMENT.read_text("utf-8"), limits.BEGIN, limits.END)
