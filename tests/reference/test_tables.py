"""Tables of results: they say what the stored numbers say, and their text is kept in step."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from reference.experiments import tables
from reference.experiments.tables import replace_section
from reference.pictures import method_gains

DACS = "DACS (mean teacher, class mix)"
RESULTS = (tables.DOCS / "results.md").read_text("utf-8")


def record(row: str, seed: int, miou: float) -> dict[str, Any]:
    return {
        "row": row, "seed": seed, "miou": miou, "iou": {"road": miou, "car": miou / 2},
        "share_ratio_max": 1.5, "share_ratio_min": 0.5, "coverage_end": None, "seconds": 12.4,
        "warnings": 1 if seed else 0, "resampled": None, "versions": {"torch": "2"},
        "machine": {"processor": "P", "gpu": None, "cores": 2, "ranks": 1}, "commit": "abc",
    }  # fmt: skip


def summary(**scores: tuple[float, ...]) -> dict[str, Any]:
    """What is stored of rows with these scores, seed by seed."""
    return tables.summarise(
        [record(row, seed, s) for row, each in scores.items() for seed, s in enumerate(each)],
        target="toy", command="python -m reference.ablate", split="test",
        images={"source": 3, "target": 4, "test": 5},
    )  # fmt: skip


SUMMARY = summary(
    source_only_continued=(50.0, 52.0), bicl=(60.0, 68.0), without_entropy=(58.0, 67.0),
    without_calibration=(61.0, 67.0), without_bank=(61.0, 69.0),
)  # fmt: skip
NEAR = summary(source_only_continued=(40.0, 50.0), method_dacs=(43.0, 51.0), bicl=(39.0, 52.0))
FAR = summary(source_only_continued=(20.0, 22.0), method_dacs=(19.0, 21.5))


def lines_of(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in cells}) == 1
    return {line[0]: line[1:] for line in cells}


def test_documents_say_what_the_stored_numbers_say(tmp_path: Path) -> None:
    assert tables.rendered(tables.DOCS) == RESULTS
    # A changed number is noticed.
    changed = replace_section(RESULTS, "toy", "| BiCL | 99.9 |")
    (tmp_path / "results.md").write_text(changed, encoding="utf-8")
    assert tables.rendered(tmp_path) != changed


def test_rows_stand_beside_those_of_other_source_networks_that_need_none() -> None:
    """An oracle begins with no source network, so it outlives one; what adapts does not."""
    new = summary(source_only=(41.0, 42.0), bicl=(45.0, 46.0))
    both = tables.joined(summary(source_only=(40.0, 42.0), oracle=(80.0, 81.0)), new)
    assert both is not None
    found = [(record["row"], record["seed"], record["miou"]) for record in both["rows"]]
    assert found == [
        *(("source_only", 0, 41.0), ("source_only", 1, 42.0), ("bicl", 0, 45.0)),
        *(("bicl", 1, 46.0), ("oracle", 0, 80.0), ("oracle", 1, 81.0)),
    ]
    assert tables.joined(summary(source_only=(40.0, 42.0), without_bank=(43.0, 44.0)), new) is None
    assert tables.joined(summary(source_only=(41.0, 42.0), without_bank=(43.0, 44.0)), new)


def test_the_main_table_holds_mean_spread_seeds_and_paired_gain() -> None:
    lines = lines_of(tables.main_table(SUMMARY))
    assert lines["row"][:6] == ["mean", "sd", "seed 0", "seed 1", "over control", "smallest"]
    assert lines["**BiCL**"] == [
        "64.0", "5.7", "60.0", "68.0", "+13.0", "+10.0", "1.5 1.5", "0.50 0.50", "0 1", "12",
    ]  # fmt: skip
    assert lines["source only, continued (control)"][4:6] == ["", ""]
    fewer = [r for r in SUMMARY["rows"] if (r["row"], r["seed"]) != ("bicl", 1)]
    line = lines_of(tables.main_table({**SUMMARY, "rows": fewer}))["**BiCL**"]
    assert line[:6] == ["60.0", "", "60.0", "", "+10.0", "+10.0"]


def test_a_table_names_the_rows_that_its_command_trains_only_by_name() -> None:
    scores = {row: (50.0, 52.0) for row in ("source_only_continued", "bicl")}
    assert "`python -m reference.ablate`. Target" in tables.render(summary(**scores))
    more = tables.render(summary(**scores, balanced=(61.0, 63.0), balanced_bank=(60.0, 62.0)))
    told = "`python -m reference.ablate`, and the same with `--rows balanced balanced_bank`. Target"
    assert told in more


@pytest.mark.parametrize("section", ["carla-to-camvid", "carla-to-kitti", "day-to-dusk"])
def test_a_table_holds_what_its_command_trains(section: str) -> None:
    stored = tables.load_summary(tables.DOCS, section)
    assert stored is not None
    assert {*tables.usual_rows(section)} <= {record["row"] for record in stored["rows"]}


def test_ingredients_are_judged_by_every_seed() -> None:
    lines = lines_of(tables.ingredient_table(SUMMARY))
    assert lines["BiCL without entropy"] == ["+1.5", "+2.0 +1.0", "worse than BiCL in every seed"]
    assert lines["BiCL without calibration"] == ["+0.0", "-1.0 +1.0", "no consistent difference"]
    assert lines["BiCL, gradient through prototypes of the batch"] == [
        "-1.0", "-1.0 -1.0", "better than BiCL in every seed",
    ]  # fmt: skip
    assert tables.ingredient_table({**SUMMARY, "rows": SUMMARY["rows"][:4]}) == ""


def resampled(record: dict[str, Any], *values: int) -> dict[str, Any]:
    return {**record, "resampled": " ".join(map(str, values))}


def test_intervals_are_those_of_paired_resamples_averaged_over_seeds() -> None:
    ramp = [*range(0, 4010, 10)]
    rows = [
        *(resampled(r, *[1000] * 401) for r in summary(source_only_continued=(40.0, 50.0))["rows"]),
        *(resampled(r, *ramp) for r in summary(balanced=(43.0, 51.0))["rows"]),
        *(resampled(r, *ramp[::-1]) for r in summary(without_contrast=(42.0, 52.0))["rows"]),
    ]
    lines = lines_of(tables.main_table({**SUMMARY, "rows": rows}))
    place = lines["row"].index("95 %")
    # From -10 to 30 in equal steps; 2.5 % are cut off at either end.
    assert lines["BiCL, balanced by class"][place] == "-9.0 to +29.0"
    assert lines["source only, continued (control)"][place] == ""
    pairs = lines_of(tables.pair_table({**SUMMARY, "rows": rows}))
    assert pairs["contrast, every class alike"] == [
        "+0.0", "-38.0 to +38.0", "+1.0 -1.0", "mixed",
    ]  # fmt: skip
    # One row without them has no interval, and without any there is no column.
    rows[2].pop("resampled")
    assert (
        lines_of(tables.main_table({**SUMMARY, "rows": rows}))["BiCL, balanced by class"][place]
        == ""
    )
    assert "95 %" not in tables.render(SUMMARY)


def test_what_a_row_has_over_another_is_told_seed_by_seed() -> None:
    both = summary(bicl=(40.0, 50.0), balanced=(43.0, 51.0), without_contrast=(39.0, 49.5))
    lines = lines_of(tables.pair_table(both))
    assert lines["balance by class"] == ["+2.0", "", "+3.0 +1.0", "helps in every seed"]
    assert lines["contrast, every pixel alike"][2:] == ["+1.0 +0.5", "helps in every seed"]
    assert len(lines) == 5 and tables.pair_table(SUMMARY) == ""


def test_classes_are_averaged_over_seeds_and_absent_ones_left_out() -> None:
    lines = lines_of(tables.class_table(SUMMARY))
    assert lines["car"] == ["25.5", "32.0"]
    assert set(lines) == {"class", "---", "road", "car"}


def test_new_rows_stand_beside_stored_ones_of_the_same_source_networks() -> None:
    stored = summary(source_only=(45.0, 44.0), bicl=(43.0, 42.0))
    new = summary(source_only=(45.0,), without_contrast=(46.0,))
    both = tables.joined(stored, new)
    assert [(each["row"], each["seed"], each["miou"]) for each in both["rows"]] == [
        ("source_only", 0, 45.0), ("source_only", 1, 44.0), ("bicl", 0, 43.0), ("bicl", 1, 42.0),
        ("without_contrast", 0, 46.0),
    ]  # fmt: skip
    for other in (
        summary(source_only=(45.1,), without_contrast=(46.0,)),
        summary(without_contrast=(46.0,)),
        new | {"images": {"source": 3, "target": 4, "test": 6}},
        new | {"target": "night"},
    ):
        assert tables.joined(stored, other) is None
    # What covers all that stands replaces it, whatever its networks.
    whole = summary(source_only=(40.0, 41.0), bicl=(42.0, 43.0))
    assert tables.joined(stored, whole) == whole


def test_a_section_is_replaced_between_its_markers_alone() -> None:
    text = "a\n<!-- generated: toy -->\nold\n<!-- end: toy -->\nb \\1\n"
    body = r"new \1 $0"
    expected = f"a\n<!-- generated: toy -->\n{body}\n<!-- end: toy -->\nb \\1\n"
    assert replace_section(text, "toy", body) == expected
    with pytest.raises(ValueError, match=r"sky --> before .*, got 0 and 0 of them"):
        replace_section(text, "sky", body)


def test_the_table_of_methods_pairs_gains_with_the_control_of_each_target() -> None:
    lines = lines_of(tables.methods_table({"near": NEAR, "far": FAR}))
    assert lines["row"][:2] == ["near (sd)", "gain"]
    assert lines[DACS] == [
        "47.0 (5.7)", "**+2.0**", "+3.0 +1.0", "20.2 (1.8)", "-0.8", "-1.0 -0.5",
    ]  # fmt: skip
    own = lines["BiCL, settings of this recipe"]
    assert own == ["45.5 (9.2)", "+0.5", "-1.0 +2.0", "", "", ""]
    assert lines["source only, continued (control)"][1:3] == [""] * 2


def test_the_picture_names_every_method_and_target_and_is_the_stored_one() -> None:
    words = [
        t.strip() for t in ElementTree.fromstring(method_gains.draw({"near": NEAR})).itertext()
    ]
    assert DACS in words and "near" in words and "source only, continued (control)" not in words
    path = tables.DOCS / "pictures" / tables.PICTURE
    assert method_gains.draw(tables.methods(tables.DOCS)) == path.read_text("utf-8")
