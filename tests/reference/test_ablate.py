"""The ingredient matrix: rows differ where they should, stored rows are safe, tables are honest."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from reference import ablate
from reference.ablate import (
    Failure,
    Options,
    chosen_cells,
    prepare,
    store_tables,
    stored_cells,
    train_missing,
)
from reference.data.transforms import Augmentation
from reference.experiments import matrix, tables
from reference.experiments.matrix import adaptation
from reference.experiments.row_names import (
    INGREDIENTS,
    LABELS,
    MAIN_ROWS,
    METHOD,
    SAFER_ROW,
    UNAUGMENTED,
)
from reference.methods.registry import METHODS
from reference.training.config import BICL, ROWS, without
from reference.training.losses import NonFiniteLossError

ROOT = Path(__file__).resolve().parents[2]


def run(options: Options, experiment) -> str:
    assert train_missing(prepare(options, experiment), options) == []
    return store_tables(options, experiment)


def records(options: Options) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((options.runs / "ablation").rglob("*.*"))}


def test_every_row_differs_from_full_bicl_where_its_name_says(tiny_experiment):
    full = asdict(tiny_experiment.adaptation)
    changed = {}
    for name in INGREDIENTS:
        row = asdict(adaptation(f"without_{name}", tiny_experiment))
        flat, whole = ({**d, **(d["contrast"] or {})} for d in (row, full))
        changed[name] = {key for key in whole if key != "contrast" and flat[key] != whole[key]}
    assert changed == {
        "target_to_source": {"target_to_source"},
        "source_to_target": {"source_to_target"},
        "calibration": {"calibrate"},
        "dynamic_labels": {"dynamic_labels"},
        "static_labels": {"static_weight", "static_from_round"},
        "entropy": {"entropy_weight"},
        "bank": {"prototypes"},
        "delay": {"entropy_from_round", "static_from_round"},
    }


def test_contrast_alone_has_neither_entropy_nor_target_cross_entropy(tiny_experiment):
    for name, calibrate in (("contrast_only", True), ("contrast_only_uncalibrated", False)):
        row = adaptation(name, tiny_experiment)
        assert row.contrast is not None
        assert row.contrast.calibrate is calibrate
        assert (row.entropy_weight, row.static_weight, row.static_from_round) == (0, 0, None)
    assert adaptation("bicl", replace(tiny_experiment, adaptation=BICL)) == BICL
    safer = adaptation(SAFER_ROW, tiny_experiment)
    assert safer.contrast is not None and safer.static_from_round == 0
    assert safer.contrast.threshold > BICL.contrast.threshold
    assert safer.contrast.target_to_source < BICL.contrast.target_to_source
    assert safer.steps == tiny_experiment.adaptation.steps and safer.entropy_weight == 0
    assert without("entropy").entropy_weight == 0 and ROWS["bicl"] == BICL


def test_the_matrix_asks_for_every_row_and_seed_and_for_fewer_on_photographs(tmp_path):
    cells = chosen_cells(Options(seeds=(0, 1, 2)))
    beside = (UNAUGMENTED, SAFER_ROW)
    rows = [row for row in LABELS if row not in beside and not row.startswith(METHOD)]
    assert [(c.row, c.experiment.seed) for c in cells] == [(r, s) for r in rows for s in range(3)]
    (tmp_path / "gtFine" / "train").mkdir(parents=True)
    photographs = chosen_cells(Options(seeds=(0,), target=str(tmp_path)))
    assert [cell.row for cell in photographs] == list(MAIN_ROWS)
    (tmp_path / "gtFine" / "train").rmdir()
    unlabelled = chosen_cells(Options(seeds=(0,), target=str(tmp_path)))
    assert [cell.row for cell in unlabelled] == list(MAIN_ROWS)[:-1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"method": ("bicle",), "rows": ()},
            f"ablate: expected methods among all, {', '.join(METHODS)}, got bicle.",
        ),
        (
            {"method": ("bicl",), "rows": ("bicl",)},
            "ablate: expected neither rows, sequence nor varied beside method, got bicl with one "
            "of them. Hint: give --method alone.",
        ),
        ({"rows": ("magic",)}, f"ablate: expected rows among {', '.join(LABELS)}, got magic."),
        ({"seeds": (1, 1)}, "ablate: expected different seeds, at least one, got (1, 1)."),
        ({"seeds": ()}, "ablate: expected different seeds, at least one, got ()."),
        ({"jobs": 0}, "ablate: expected jobs of at least 1, got 0."),
        (
            {"sequence": "dusk"},
            "ablate: expected the root of photographs as target beside sequence dusk, got toy. "
            "Hint: give --target.",
        ),
        (
            {"varied": True},
            "ablate: expected photographs without a sequence as target beside varied, got toy. "
            "Hint: give --target alone.",
        ),
        (
            {"varied": True, "target": "/data/town", "sequence": "dusk"},
            "ablate: expected photographs without a sequence as target beside varied, got dusk. "
            "Hint: give --target alone.",
        ),
    ],
)
def test_bad_options_are_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        chosen_cells(replace(Options(), **changes))


def test_rows_are_stored_reused_and_told(options, tiny_experiment, capsys):
    told = run(options, tiny_experiment)
    assert told == f"Wrote {options.docs}/results/toy.json and {options.docs}/results.md"
    before = records(options)
    assert list(before) == ["bicl.json", "entropy_only.json", "source_only.json", "source_only.pt"]
    record = json.loads(before["bicl.json"])
    assert record["seed"] == 0 and 0 <= record["miou"] <= 100
    assert record["share_ratio_max"] >= record["share_ratio_min"] >= 0
    capsys.readouterr()
    more = replace(options, rows=("entropy_only", "bicl", "self_training"))
    assert [cell.row for cell in prepare(more, tiny_experiment)] == ["self_training"]
    assert "3 of 4 rows are stored with these settings: reused." in capsys.readouterr().err
    assert records(options) == before


def test_rows_of_other_settings_are_refused_and_kept(options, tiny_experiment):
    run(options, tiny_experiment)
    before = records(options)
    weak = replace(tiny_experiment.adaptation, entropy_weight=0.125)
    found = tiny_experiment.adaptation.entropy_weight
    with pytest.raises(ValueError) as caught:
        prepare(options, replace(tiny_experiment, adaptation=weak))
    path = options.runs / "ablation" / "toy" / "seed0" / "bicl.json"
    assert str(caught.value) == (
        f"ablate: expected {path} to be made with adaptation.entropy_weight = 0.125, got {found}. "
        "Hint: move the folder away, or choose another with --runs."
    )
    assert records(options) == before


def test_a_damaged_row_is_refused(options, tiny_experiment):
    run(options, tiny_experiment)
    path = options.runs / "ablation" / "toy" / "seed0" / "bicl.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"bicl\.json to hold JSON, got a damaged file"):
        prepare(options, tiny_experiment)


def test_other_code_is_told(options, tiny_experiment, capsys, monkeypatch):
    run(options, tiny_experiment)
    monkeypatch.setattr(ablate, "code_digest", lambda: "other")
    capsys.readouterr()
    prepare(options, tiny_experiment)
    assert "were made by other code" in " ".join(capsys.readouterr().err.split())


def test_a_lost_checkpoint_is_made_again_and_is_the_same(options, tiny_experiment):
    run(options, tiny_experiment)
    before = records(options)
    (options.runs / "ablation" / "toy" / "seed0" / "source_only.pt").unlink()
    missing = prepare(options, tiny_experiment)
    assert [cell.row for cell in missing] == ["source_only"]
    train_missing(missing, options)
    assert (
        json.loads(records(options)["source_only.json"])["iou"]
        == (json.loads(before["source_only.json"])["iou"])
    )


def test_a_row_that_diverges_is_told_and_the_others_are_kept(
    options, tiny_experiment, monkeypatch, capsys
):
    def diverge(cell, scenario):
        if cell.row == "entropy_only":
            raise NonFiniteLossError("entropy_only: expected a finite loss, got entropy = nan.")
        return matrix.compute(cell, scenario)

    monkeypatch.setattr(ablate, "compute", diverge)
    failures = train_missing(prepare(options, tiny_experiment), options)
    assert [(f.cell.row, f.sentence) for f in failures] == [
        ("entropy_only", "entropy_only: expected a finite loss, got entropy = nan.")
    ]
    assert "failed: entropy_only" in capsys.readouterr().err
    assert [cell.row for cell in stored_cells(options, tiny_experiment)] == ["source_only", "bicl"]


def test_a_seed_whose_source_stage_fails_is_left_out(options, tiny_experiment, monkeypatch):
    def diverge(cell, scenario):
        raise NonFiniteLossError("source_only: expected a finite loss.")

    monkeypatch.setattr(ablate, "compute", diverge)
    failures = train_missing(prepare(options, tiny_experiment), options)
    assert [type(failure) for failure in failures] == [Failure]
    assert failures[0].cell.row == "source_only"


def test_numbers_in_documents_are_not_replaced_by_fewer(options, tiny_experiment):
    run(options, tiny_experiment)
    path = options.docs / "results" / "toy.json"
    before = path.read_bytes(), (options.docs / "results.md").read_bytes()
    fewer = replace(options, runs=options.runs.with_name("other"), rows=("bicl",))
    shutil.copytree(options.runs / "data", fewer.runs / "data")
    assert run(fewer, tiny_experiment) == (
        f"{path} is left as it is: it holds 3 rows of toy, "
        "and the 2 stored rows of toy do not cover them."
    )
    assert (path.read_bytes(), (options.docs / "results.md").read_bytes()) == before
    assert run(replace(options, rows=("self_training",)), tiny_experiment).startswith("Wrote")
    assert len(json.loads(path.read_text())["rows"]) == 4


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_numbers(options, tiny_experiment):
    run(options, tiny_experiment)
    beside = replace(options, jobs=2, runs=options.runs.with_name("other"))
    shutil.copytree(options.runs / "data", beside.runs / "data")
    run(beside, tiny_experiment)
    for cell, record in stored_cells(options, tiny_experiment).items():
        path = beside.runs / "ablation" / "toy" / "seed0" / cell.path.name
        assert json.loads(path.read_text())["iou"] == record["iou"]


def test_what_is_asked_for_decides_where_results_go():
    asked = [
        Options(),
        Options(target="night"),
        Options(target="/data/town", jobs=1),
        Options(target="/data/town", varied=True),
        Options(target="/data/town", sequence="dusk"),
    ]
    sections = [option.section for option in asked]
    assert sections == ["toy", "methods-night", "photographs", "varied", "sequence"]
    methods = [
        Options(method=("all",)),
        Options(target="/data/town", method=("spcl",)),
        Options(target="night", method=("all",)),
    ]
    assert [o.section for o in methods] == [*tables.METHODS.values()]
    assert methods[1].command == (
        "python -m reference.ablate --jobs 2 --target <root of town> --method all"
    )
    assert {*sections} == {*tables.SECTIONS, tables.METHODS["drawn nights"]}
    assert len({o.folder for o in asked}) == len(asked)
    assert [o.command for o in asked] == [
        "python -m reference.ablate --jobs 2",
        "python -m reference.ablate --jobs 2 --target night --method all",
        "python -m reference.ablate --jobs 1 --target <root of town>",
        "python -m reference.ablate --jobs 2 --target <root of town> --varied",
        "python -m reference.ablate --jobs 2 --target <root of town> --sequence dusk",
    ]


def test_one_source_row_is_trained_without_augmentation(options, tiny_experiment):
    data = replace(tiny_experiment.data, augmentation=Augmentation(noise=0.5))
    experiment = replace(tiny_experiment, data=data)
    asked = replace(options, rows=(UNAUGMENTED,))
    run(asked, experiment)
    plain, augmented = (
        json.loads(records(asked)[f"{row}.json"])["iou"] for row in (UNAUGMENTED, "source_only")
    )
    assert plain != augmented
    table = (options.docs / "results.md").read_text()
    assert "| source only, no augmentation |" in table and "| source only, augmented |" in table
