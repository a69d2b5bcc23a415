"""What is made of measurements: ratios, goals, reasons, documents and the picture."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks import chart, compare, goals, measure, pairs, peers, report, slower, table
from benchmarks.cases import CASES, SMALL, Case
from benchmarks.measure import COPY
from benchmarks.operators import COMPILED, IN_TORCH, LIBRARY, OPERATORS
from benchmarks.report import DEFAULT, NO_FAULTS, Measured

CONTRAST = Case("contrast", "features", 64)


def row(
    contender: str, time_ms: float, peak_mib: float | None, case: Case = CONTRAST, **changes: Any
) -> dict[str, Any]:
    described = asdict(case) | {"size": list(case.size)}
    del described["compiled"]
    figures = {"time_ms": time_ms, "spread_ms": 0.5, "peak_mib": peak_mib, "error": 1e-7}
    figures["page_faults"] = 0
    named = {"allocator": DEFAULT, "contender": contender, "first_call_s": 0.25}
    return named | described | figures | changes


def rows(ours: float = 20, eager: float = 110, case: Case = CONTRAST) -> list[dict[str, Any]]:
    """A case with the library, its plain composition and a copy, in both allocators."""
    found = []
    for allocator, peaks in ((DEFAULT, (18, 120, 16)), (NO_FAULTS, (None, None, None))):
        times = dict(zip((LIBRARY, "eager", COPY), (ours, eager, 4.0), strict=True))
        found += measure.with_ratios(
            [
                row(who, time, peak, case, allocator=allocator)
                for (who, time), peak in zip(times.items(), peaks, strict=True)
            ]
        )
    return found


def test_ratios_are_gains_over_the_contender_and_copies() -> None:
    found = measure.with_ratios(
        [row(LIBRARY, 20, 18), row("eager", 110, 120), row("new", 5, None), row(COPY, 4, 16)]
    )
    assert [r["speedup"] for r in found] == [1, 5.5, 0.25, 0.2]
    assert [r["memory_ratio"] for r in found] == [1, 0.15, None, 1.12]
    assert [r["time_copies"] for r in found] == [5, 27.5, 1.25, 1]
    assert [r["peak_copies"] for r in found] == [1.125, 7.5, None, 1]


def test_the_table_shows_both_allocators() -> None:
    lines = report.comparison(Measured(rows())).splitlines()
    name = "contrast, gradient: features, D = 64, 128x256"
    assert lines[2:] == [
        f"| {name} | protocontrast | 20 (0.50) |  | 20 (0.50) |  | 5.00 | 18 | 1.12 "
        "| 1e-07 | 0.25 |",
        f"| {name} | eager | 110 (0.50) | 5.50x | 110 (0.50) | 5.50x | 28 | 120 | 7.50 "
        "| 1e-07 | 0.25 |",
        f"| {name} | {COPY} | 4.00 (0.50) |  | 4.00 (0.50) |  | 1.00 | 16 | 1.00 |  |  |",
    ]


def test_cases_are_told_apart_by_name() -> None:
    keys = {report.key_of(row("eager", 1, 1, case)) for case in CASES}
    assert len(keys) == len(CASES) == len({report.name_of(key) for key in keys})


def test_a_goal_is_met_missed_or_not_measured() -> None:
    found = goals.goals(Measured(rows(ours=20, eager=110)))
    name = "| contrast, gradient: features, D = 64, 128x256 | "
    assert f"{name}eager | at least 6 times as fast; 4.5 | 5.50, missed | 5.50, met |  |" in found
    assert f"{name}eager | at most 0.3 of its peak | 0.15, met | - |  |" in found
    assert f"{name}{COPY} | at most 5.5 of its time | 5.00, met | 5.00, met |  |" in found
    assert f"{name}{COPY} | at most 1.2 of its memory | 1.12, met | - |  |" in found
    assert (
        f"{name}{goals.ALONE} | an error of at most 1e-06 | 1e-07, met | 1e-07, met |  |" in found
    )
    assert f"{name}{COMPILED} | at least 1.3 times as fast | - | - |  |" in found


def test_what_binds_a_missed_goal() -> None:
    """Page faults where they were measured; else what is known of C, and of nothing else."""
    key = report.key_of(row(LIBRARY, 1, 1))
    (goal,) = (g for g in goals.GOALS if g.key == key and g.field == "time_copies")

    def binding(found: list[dict[str, Any]]) -> str:
        return goals._binding(Measured(found), goal, 5.5)

    slow = rows(ours=30)
    assert binding(slow) == ""
    in_bfloat16 = Case("contrast", "features", 64, dtype="bfloat16")
    (goal,) = (g for g in goals.GOALS if g.key[-1] == "bfloat16" and g.against == COMPILED)
    plain, both = (
        [row(LIBRARY, 9, 1, in_bfloat16), row(COMPILED, 9, 1, in_bfloat16)] for _ in "ab"
    )
    both.append(row(IN_TORCH, 9, 1, in_bfloat16))
    assert binding(plain) == ""
    assert binding(both).startswith("products, which are taken in float32")
    (goal,) = (g for g in goals.GOALS if g.key == key and g.field == "time_copies")
    faulty = rows(ours=20)
    for one in faulty:
        one["page_faults"] = 9 if one["contender"] == LIBRARY else 0
    assert binding(faulty) == goals.PAGE_FAULTS


def test_every_goal_is_about_a_case_and_a_contender_of_it() -> None:
    cases = {report.key_of(row("eager", 1, 1, case)): case for case in CASES}
    for goal in goals.GOALS:
        case = cases[goal.key]
        contenders = {*OPERATORS[case.operator].contenders, COPY, goals.ALONE}
        assert goal.against in contenders | ({COMPILED} if case.compiled else set())


def test_where_the_library_is_slower_a_reason_is_shown() -> None:
    small = Case("contrast", "features", 64, size=SMALL)
    text = slower.explained(Measured(rows(ours=20, eager=15, case=small)))
    line = text.splitlines()[2]
    assert line.startswith("| a call has a fixed price")
    assert line.endswith("| contrast, gradient: features, D = 64, 24x48: eager 0.75x, 0.75x |")
    unknown = Case("nothing of ours", "none", 64)
    text = slower.explained(Measured(rows(ours=20, eager=15, case=unknown)))
    assert text.splitlines()[2].startswith(f"| {slower.UNEXPLAINED} |")
    text = slower.explained(Measured(rows(ours=20, eager=19.6, case=unknown)))
    assert text.splitlines()[2].startswith(f"| {slower.WITHIN_SPREAD} |")
    noisy = [one | {"spread_ms": 9} if one["contender"] == "eager" else one
             for one in rows(ours=20, eager=15, case=unknown)]  # fmt: skip
    text = slower.explained(Measured(noisy))
    assert text.splitlines()[2].startswith(f"| {slower.UNEXPLAINED} |")
    assert slower.explained(Measured(rows(ours=20, eager=21))) == "Nowhere in this run."


@pytest.mark.parametrize(
    ("own", "other", "without", "why"),
    [
        (9, 1, 30, slower.PAGE_FAULTS),
        (1, 9, 30, slower.UNEXPLAINED),
        (9, 1, 15, slower.UNEXPLAINED),
    ],
)
def test_page_faults_are_a_reason_where_ours_took_more_and_is_faster_without(
    own: int, other: int, without: float, why: str
) -> None:
    case, faults = Case("nothing of ours", "none", 64), {LIBRARY: own, "eager": other, COPY: 0}
    first = [r | {"page_faults": faults[r["contender"]]} for r in rows(20, 15, case)]
    kept = [r for r in first if r["allocator"] == DEFAULT]
    after = [r for r in rows(20, without, case) if r["allocator"] == NO_FAULTS]
    assert slower.explained(Measured(kept + after)).splitlines()[2].startswith(f"| {why} |")


def test_every_reason_is_about_a_case() -> None:
    keys = {report.key_of(row("eager", 1, 1, case)): case for case in CASES}
    for one in slower.REASONS:
        assert any(
            one.holds(key, contender)
            for key, case in keys.items()
            for contender in [*OPERATORS[case.operator].contenders, COMPILED]
        )


def test_the_picture_is_well_formed_and_shows_what_was_measured() -> None:
    stored = {"environment": {"device": "a < b", "torch": "2", "date": "now"}, "rows": rows()}
    picture = chart.draw(stored)
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    words = [element.text for element in root.iter(f"{space}text")]
    assert "contrast, D = 64" in words and "contrast, D = 256" not in words
    assert {"5.00", "1.12"} <= set(words)
    assert len(list(root.iter(f"{space}circle"))) == 2 + 2 * 2  # the legend and two panels
    assert picture == chart.draw(stored)


def test_every_line_of_the_picture_is_measured() -> None:
    keys = {report.key_of(row("eager", 1, 1, case)) for case in CASES}
    assert {key for line in chart.LINES for key in line.keys} <= keys


def test_the_best_of_the_others_stands_for_them() -> None:
    found = rows()
    found += [row("index_add", 50, 60), row("one-hot bmm", 30, 90)]
    for other in found[-2:]:
        other.update(time_copies=other["time_ms"] / 4, peak_copies=other["peak_mib"] / 16)
        found.append({**other, "allocator": NO_FAULTS})
    measured = Measured(found)
    assert chart.values(measured, chart.LINES[0], "time_copies")["tuned eager"] == 7.5
    assert chart.values(measured, chart.LINES[0], "peak_copies")["tuned eager"] == 3.75


def test_the_measured_part_replaces_the_old_one() -> None:
    ends = table.BEGIN, table.END
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    changed = report.insert(text, "new", *ends)
    assert changed == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    assert report.insert(changed, "new", *ends) == changed
    assert report.inserted(changed, *ends) == "new"
    with pytest.raises(ValueError, match=r"insert: expected text with .*, got neither or one\."):
        report.insert(text.replace(table.END, ""), "new", *ends)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(table.RESULTS.read_text("utf-8"))
    return found


def test_documents_picture_and_sheet_are_those_of_the_stored_results() -> None:
    for path, text in table.written().items():
        assert path.read_bytes() == text.encode(), path


def test_the_sheet_has_every_row_with_device_versions_commit_and_allocator(
    published: dict[str, Any],
) -> None:
    with table.SHEET.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(published["rows"])
    for name in ("device", "torch", "compiler", "commit", "allocator", "date"):
        assert all(line[name] for line in lines), name
    assert re.fullmatch(r"[0-9a-f]{12}", lines[0]["commit"])


def test_every_case_is_published_under_both_allocators(published: dict[str, Any]) -> None:
    found = {(r["allocator"], report.key_of(r), r["contender"]) for r in published["rows"]}
    compiles = published["environment"]["compiler"] != "none"
    expected = {
        (allocator, report.key_of(row("", 1, 1, case)), contender)
        for allocator in compare.ALLOCATORS
        for case in CASES
        for contender in [
            *OPERATORS[case.operator].contenders,
            COPY,
            *([COMPILED] if case.compiled and compiles else []),
        ]
    }
    # A library that is here may not have been where the run was made, and the other way round.
    optional = {*peers.OPTIONAL, *pairs.OPTIONAL, IN_TORCH}
    expected, found = (
        {row for row in rows if row[2] not in optional} for rows in (expected, found)
    )
    assert expected == found


def test_everything_slower_than_an_alternative_has_its_line_in_the_document(
    published: dict[str, Any],
) -> None:
    text = table.DOCUMENT.read_text("utf-8")
    section = text.partition("### Where it is slower")[2].partition("<!-- measured: end")[0]
    shown: dict[tuple[str, str], str] = {}
    for line in section.splitlines()[4:]:
        if line.startswith("| "):
            why, places = line.strip("| ").split(" | ")
            for place in places.split("<br>"):
                name, _, rest = place.rpartition(": ")
                shown[name, rest.rsplit(" ", 2)[0]] = why
    beaten = [r for r in published["rows"] if r["contender"] != COPY and r["speedup"] < 1]
    expected = {(report.name_of(report.key_of(r)), r["contender"]) for r in beaten}
    assert shown.keys() == expected
    assert slower.UNEXPLAINED not in shown.values()


def test_the_document_shows_the_picture() -> None:
    assert f"](pictures/{table.PICTURE.name})" in table.DOCUMENT.read_text("utf-8")
