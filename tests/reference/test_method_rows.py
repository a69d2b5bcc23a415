"""Related methods as rows of results: what is trained, stored, laid out and drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from reference.ablate import Options, chosen_cells
from reference.experiments import method_tables, tables
from reference.experiments.row_names import BESIDE_METHODS, METHOD
from reference.pictures import method_gains
from reference.training.config import Experiment
from tests.reference.test_ablate import records, run

DACS = "DACS (mean teacher, class mix)"


def summary(**scores: tuple[float, ...]) -> dict:
    return {
        "rows": [
            {"row": row, "seed": seed, "miou": miou}
            for row, found in scores.items()
            for seed, miou in enumerate(found)
        ]
    }


def cells(table: str) -> dict[str, list[str]]:
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1
    return {line[0]: line[1:] for line in lines}


def test_methods_are_rows_beside_the_control_and_go_into_a_part_of_their_own(
    options: Options, tiny_experiment: Experiment
) -> None:
    asked = Options(seeds=(0,), method=("dacs",), jobs=1, runs=options.runs, docs=options.docs)
    rows = [cell.row for cell in chosen_cells(asked, tiny_experiment)]
    assert rows == [*BESIDE_METHODS, f"{METHOD}dacs"]
    assert run(asked, tiny_experiment).startswith("Wrote")
    stored = json.loads((options.docs / "results" / "methods.json").read_text())
    assert {row["row"] for row in stored["rows"]} == {*rows}
    assert f"| {DACS} |" in (options.docs / "results.md").read_text()
    assert (options.docs / "pictures" / "methods.svg").read_text().startswith("<svg")
    settings = json.loads(records(asked)[f"{METHOD}dacs.json"])["settings"]
    assert settings["method"] == "dacs"
    assert not (options.docs / "results" / "toy.json").exists()


def test_the_table_pairs_gains_with_the_control_of_each_target() -> None:
    near = summary(source_only_continued=(40.0, 50.0), method_dacs=(43.0, 51.0), bicl=(39.0, 52.0))
    far = summary(source_only_continued=(20.0, 22.0), method_dacs=(19.0, 21.5))
    lines = cells(method_tables.table({"near": near, "far": far}))
    assert lines["row"][:2] == ["near (sd)", "gain"]
    assert lines[DACS] == [
        "47.0 (5.7)", "**+2.0**", "+3.0 +1.0", "20.2 (1.8)", "-0.8", "-1.0 -0.5",
    ]  # fmt: skip
    own = lines["BiCL, settings of this recipe"]
    assert own == ["45.5 (9.2)", "+0.5", "-1.0 +2.0", "", "", ""]
    assert lines["source only, continued (control)"][1:3] == [""] * 2


def test_the_picture_names_every_method_and_target() -> None:
    near = summary(source_only_continued=(40.0, 50.0), method_dacs=(43.0, 51.0))
    drawn = method_gains.draw({"near": near, "far": None})
    assert drawn == method_gains.draw({"near": near})
    root = ElementTree.fromstring(drawn)
    words = " ".join(text.strip() for text in root.itertext())
    assert DACS in words and "near" in words and "control" not in words.split(DACS)[0]


def test_the_stored_picture_is_the_one_that_the_numbers_give() -> None:
    found = tables.methods(tables.DOCS)
    drawn = method_gains.draw(found) if any(found.values()) else None
    path = tables.DOCS / "pictures" / method_tables.PICTURE
    assert drawn == (path.read_text("utf-8") if path.exists() else None)


def test_fewer_steps_are_rounds_as_long_in_a_folder_of_their_own() -> None:
    asked = Options(steps=300, method=("dacs", "spcl"))
    adaptation, preset = asked.experiment(1).adaptation, Options().experiment(1).adaptation
    assert (adaptation.steps, adaptation.rounds) == (300, 3)
    assert replace(adaptation, steps=preset.steps, rounds=preset.rounds) == preset
    assert asked.folder.name == "toy-300-steps"
    assert asked.command.endswith("--method all --steps 300")
    with pytest.raises(ValueError, match="expected steps >= rounds = 1, got -1"):
        Options(steps=-1).experiment(0)
