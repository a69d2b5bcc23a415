"""The scaling curves: small ones are measured and drawn, and the document says what is stored."""

import json
from pathlib import Path

from benchmarks import scaling
from benchmarks.report import inserted

SMALL = {axis: [point._replace(pixels=64) for point in (points[0], points[-1])]
         for axis, points in scaling.SWEEPS.items()}  # fmt: skip


def test_every_axis_moves_one_number_alone() -> None:
    for axis, points in scaling.SWEEPS.items():
        others = [name for name in scaling.Point._fields if name != axis]
        assert len({tuple(getattr(point, name) for name in others) for point in points}) == 1
        values = [getattr(point, axis) for point in points]
        assert values == sorted({*values})


def test_small_curves_are_measured_and_drawn(tmp_path: Path) -> None:
    rows = list(scaling.measured(SMALL, 1))
    assert len(rows) == len(SMALL) * len(scaling.GRADIENTS) * 2 * 2
    stored = {"environment": scaling.environment(), "repetitions": 1, "rows": rows}
    for name in ("first.svg", "second.svg"):
        scaling.draw(stored, tmp_path / name)
    first, second = ((tmp_path / name).read_text() for name in ("first.svg", "second.svg"))
    assert first == second
    assert first.count("<svg") == 1
    table = scaling.growth(stored).splitlines()
    assert len(table) == 2 + len(SMALL) * len(scaling.GRADIENTS) * 2


def test_growth_is_the_ratio_of_the_ends() -> None:
    rows = [
        {"axis": axis, "operator": name, "contender": who, axis: place, "pixels": 1000,
         "time_ms": time}
        for axis in scaling.SWEEPS
        for name in scaling.GRADIENTS
        for who in (scaling.LIBRARY, scaling.EAGER)
        for place, time in ((1000, 1.0), (2000, 3.0))
    ]  # fmt: skip
    last = scaling.growth({"rows": rows}).splitlines()[-1]
    assert last.endswith("| 1000 | 3000 | 3.00 |")


def test_the_document_says_what_is_stored(tmp_path: Path) -> None:
    stored = json.loads(scaling.RESULTS.read_text())
    text = scaling.DOCUMENT.read_text("utf-8")
    assert inserted(text, scaling.BEGIN, scaling.END) == scaling.render(stored)
    scaling.draw(stored, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").read_text() == scaling.PICTURE.read_text()
