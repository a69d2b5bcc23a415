"""The ingredient matrix: rows differ where they should, stored rows are safe, tables are honest."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reference.ablate import Options, runs_of, store_tables, stored_records, train_missing
from reference.evaluation.protocol import Scores
from reference.experiments import runs, tables, targets
from reference.experiments.rows import (
    BESIDE_METHODS,
    BESIDE_ON_PRESETS,
    INGREDIENTS,
    LABELS,
    MAIN_ROWS,
    METHOD,
    ORACLE,
    PAIRS,
    PRESET_ROWS,
    SAFER,
    SOURCE,
    UNAUGMENTED,
    VARIANTS,
    settings_of,
)
from reference.experiments.targets import target_settings
from reference.methods import METHODS
from reference.presets import PRESETS
from reference.run.folder import RunFolder, as_plain, flat
from reference.run.ranks import Ranks
from reference.settings import AdaptationStage, Settings
from tests.reference.tiny_runs import digest, few, held
from tests.reference.trees import contents

TOY = PRESETS["toy"][1]
BEGIN = Path("source/last.pth")


def stage(row: str, preset: Settings = TOY) -> AdaptationStage:
    return settings_of(row, preset, BEGIN).adaptation


def apart(row: str, base: str, preset: Settings = TOY) -> set[str]:
    """Settings of the adaptation in which two rows differ."""
    one, other = (flat(asdict(stage(name, preset))) for name in (row, base))
    return {key for key, value in one.items() if value != other[key]}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder runs/ whose scenes are drawn and whose source network is trained."""
    place = tmp_path_factory.mktemp("drawn") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "target_settings", few)
        source = Options(seeds=(0,), rows=(SOURCE,), jobs=1, runs=place, docs=place)
        assert train_missing(source) == []
    return place


@pytest.fixture
def options(tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A command over seed 0, with few steps and documents of its own."""
    monkeypatch.setattr(targets, "target_settings", few)
    place, docs = tmp_path / "runs", tmp_path / "docs"
    shutil.copytree(drawn, place)
    docs.mkdir()
    names = (*tables.SECTIONS, "methods")
    markers = (f"<!-- generated: {name} -->\n<!-- end: {name} -->" for name in names)
    (docs / "results.md").write_text("# Results\n\n" + "\n\nBy hand.\n\n".join(markers) + "\n")
    return Options(seeds=(0,), rows=("entropy_only", "bicl"), jobs=1, runs=place, docs=docs)


def run(options: Options) -> str:
    assert train_missing(options) == []
    return store_tables(options)


def scores(options: Options) -> dict[str, dict[str, float]]:
    return {run.row: record["iou"] for run, record in stored_records(options).items()}


def test_every_row_differs_from_full_bicl_where_its_name_says() -> None:
    assert {name: apart(f"without_{name}", "bicl") for name in INGREDIENTS} == {
        "contrast": {"contrast.target_to_source", "contrast.source_to_target"},
        "target_to_source": {"contrast.target_to_source"},
        "source_to_target": {"contrast.source_to_target"},
        "calibration": {"contrast.calibrate"},
        "dynamic_labels": {"contrast.dynamic_labels"},
        "static_labels": {"static_labels"},
        "entropy": {"entropy_weight"},
        "bank": {"contrast.prototypes"},
        "delay": {"entropy_from_round", "static.from_round"},
    }
    assert stage("bicl") == TOY.adaptation


def test_every_variant_differs_from_the_published_contrast_and_from_every_other() -> None:
    carla = PRESETS["carla-to-camvid"][1]
    stages = {row: stage(row, carla) for row in ("bicl", *VARIANTS)}
    assert {*VARIANTS} < {*stages} and len({*stages.values()}) == len(stages)
    for row, changed in stages.items():
        assert (changed.contrast.balance == "class") == row.startswith("balanced"), row
        assert changed.iterations == carla.adaptation.iterations
    # What is worth what differs in that alone.
    differing = {what: apart(row, base, carla) for what, (row, base) in PAIRS.items()}
    weights = {"contrast.target_to_source", "contrast.source_to_target"}
    assert differing["contrast, every pixel alike"] == weights
    assert differing["contrast, every class alike"] == {"contrast.balance", *weights}
    assert differing["balance by class"] == {"contrast.balance"}
    assert differing["dynamic labels, every class alike"] == {"contrast.dynamic_labels"}
    assert differing["the same that the head shares"] == {
        "contrast.dynamic_labels", "contrast.agree",
    }  # fmt: skip


def test_every_row_keeps_schedule_data_and_network_of_its_preset() -> None:
    preset = replace(TOY, adaptation=replace(TOY.adaptation, iterations=7, rounds=2))
    for row in LABELS:
        settings = settings_of(row, preset, BEGIN)
        assert (settings.data, settings.network) == (preset.data, preset.network), row
        assert (settings.adaptation.iterations, settings.adaptation.rounds) == (7, 2), row
        assert settings.stages == {ORACLE: "oracle", SOURCE: "source-only"}.get(
            row, "source-only" if row == UNAUGMENTED else "adapt"
        )
        assert settings.begin == (BEGIN if settings.stages == "adapt" else None)
    assert settings_of(ORACLE, preset, BEGIN).source.iterations == TOY.source.iterations + 7
    assert settings_of("source_only_continued", preset, BEGIN).method == "control"
    assert settings_of(f"{METHOD}dacs", preset, BEGIN).method == "dacs"
    strong = PRESETS["day-to-dusk"][1]
    assert settings_of(ORACLE, strong, BEGIN).source.crops == strong.adaptation.target_crops
    plain, augmented = (settings_of(row, strong, BEGIN).source for row in (UNAUGMENTED, SOURCE))
    assert augmented == strong.source and plain.crops.colours.probability == 0


def test_the_matrix_asks_for_every_row_and_for_fewer_on_photographs() -> None:
    assert {*LABELS} - {*Options().wanted_rows} == {
        UNAUGMENTED, SAFER, *VARIANTS, *(row for row in LABELS if row.startswith(METHOD)),
    }  # fmt: skip
    rendered = Options(target="carla-to-kitti").wanted_rows
    assert {*rendered} == {*PRESET_ROWS} and {"balanced", ORACLE, "without_entropy"} < {*rendered}
    assert Options(target="day-to-dusk").wanted_rows == MAIN_ROWS
    listed = runs_of(Options(seeds=(0, 2)), ("bicl", SOURCE), (0, 2))
    assert [(r.row, r.settings.seed) for r in listed] == [
        ("bicl", 0), (SOURCE, 0), ("bicl", 2), (SOURCE, 2),
    ]  # fmt: skip
    assert listed[0].begin == listed[1].folder


def test_a_method_that_needs_day_images_is_asked_for_at_night_alone() -> None:
    day, night = (Options(target=t, method=("all",)).wanted_rows for t in ("toy", "night"))
    assert set(night) - set(day) == {"method_bi_mix"} and {*BESIDE_METHODS} < {*day}
    photographs = Options(target="carla-to-kitti", method=("all",)).wanted_rows
    assert {*photographs} == ({*day} - {*BESIDE_METHODS}) | {*BESIDE_ON_PRESETS}
    assert "method_bi_mix" in Options(target="night", method=("bi_mix",)).wanted_rows
    for name, problem in (("bi_mix", r"one without\. Hint: give --target night"), ("no", "no")):
        with pytest.raises(ValueError, match=f"^ablate: expected .*, got {problem}\\.$"):
            _ = Options(method=(name,)).wanted_rows


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"rows": ("magic",)}, "rows among .*, got magic"),
    ({"seeds": (1, 1)}, r"different seeds, at least one, got \(1, 1\)"),
    ({"seeds": ()}, "different seeds, .*"), ({"jobs": 0}, "jobs of at least 1, got 0"),
    ({"steps": -1}, "steps of at least 1, got -1"),
    ({"method": ("bicl",), "rows": ("bicl",)}, "no rows .* Hint: give --method alone"),
    ({"target": "carla-to-kitti"}, "root a folder .*, got None. Hint: .* with --root"),
    ({"target": "/data/town"}, "target toy, .*, got /data/town. Hint: .* with --root"),
])  # fmt: skip
def test_bad_options_are_refused_in_one_sentence(changes: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"^ablate: expected {sentence}\.$"):
        Options(**changes).check()


def test_a_target_has_its_preset_and_its_data(tmp_path: Path) -> None:
    data = Path("runs/data")
    night = target_settings("night", 3, data=data)
    assert night.seed == 3 and night.data.drawn.night
    assert night.data.root == data / "night-192x96-seed3"
    carla = target_settings("carla-to-kitti", 1, data=data, root=tmp_path).data
    assert carla.root == tmp_path and carla.target_set == "kitti"
    # Photographs of 480x360 and of 621x188 pixels are seen in their own shape.
    for target, shape in (("camvid", 480 / 360), ("kitti", 621 / 188)):
        settings = target_settings(f"carla-to-{target}", 0, data=data, root=tmp_path)
        height, width = settings.reporting.size
        assert settings.adaptation.static.size == (height, width)
        assert width / height == pytest.approx(shape, rel=0.01)


def test_a_source_network_serves_targets_that_differ_in_nothing_it_reads(options, capsys):
    asked = replace(options, rows=(SOURCE,))
    assert train_missing(asked) == []
    first = runs_of(asked, (SOURCE,), (0,))[0]

    def elsewhere(name: str, **data: Any) -> runs.Run:
        settings = replace(first.settings, data=replace(first.settings.data, **data))
        return replace(first, settings=settings, folder=options.runs / name / "seed0" / SOURCE)

    other = elsewhere("validation", val_split="val")
    # As a command leaves it that was killed before it had scored the network.
    with RunFolder(other.folder, as_plain(other.settings), Ranks(), resume=False) as folder:
        folder.record(0)
    assert runs.take_over(other, options.runs / "ablation") == first.folder
    stored, taken = (held(run.folder) for run in (first, other))
    assert taken["settings"]["data"]["val_split"] == "val" and taken["iteration"] == 4
    assert digest(taken["student"]) == digest(stored["student"])
    scores, record = (runs.record_of(run) for run in (first, other))
    assert scores is not None and record is not None and record["miou"] != scores["miou"]
    assert (record["seconds"], record["row"]) == (0, SOURCE)
    assert runs.train_run(other.settings, other.folder) is None
    # Neither again nor from a run that read something else, or has not ended.
    assert runs.take_over(other, options.runs / "ablation") is None
    assert (
        runs.take_over(elsewhere("night", merge=("car=road",)), options.runs / "ablation") is None
    )
    longer = replace(first.settings, source=replace(first.settings.source, iterations=5))
    wanted = replace(elsewhere("longer"), settings=longer)
    assert runs.take_over(wanted, options.runs / "ablation") is None
    # As the command does it.
    (options.runs / "ablation" / "toy").rename(options.runs / "ablation" / "before")
    capsys.readouterr()
    assert train_missing(asked) == []
    assert "before/seed0/source_only, scored on this target." in capsys.readouterr().out


def test_an_oracle_is_scored_on_the_classes_of_the_other_rows(options, monkeypatch) -> None:
    """Labels of the target have trucks, which no label of the source has."""
    started = {"versions": {}, "machine": {}, "commit": "abc"}

    def complete(folder: Path) -> SimpleNamespace:
        truck = 10.0 if folder.name == ORACLE else None
        return SimpleNamespace(
            classes=("road", "truck", "bus"), iou={"road": 60.0, "truck": truck, "bus": 0.0},
            confusion=[[3, 1, 0], [0, 2, 0], [0, 0, 0]], column=lambda name: [], alarms=[],
            held={"monitor": {"source": torch.tensor([4.0, 0.0, 0.0])}}, starts=[started],
        )  # fmt: skip

    monkeypatch.setattr(runs, "_complete", complete)
    for run in runs_of(options, (SOURCE, ORACLE), (0,)):
        record = runs.record_of(run)
        assert record is not None and (record["iou"], record["miou"]) == ({"road": 60.0}, 60.0)


def test_resamples_of_images_pair_and_spread_about_the_score(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    each = random.integers(0, 9, (30, 3, 3)).astype(np.uint32)
    # The last class is neither labelled nor predicted.
    each[:, 2], each[:, :, 2] = 0, 0
    assert runs.resampled_scores(tmp_path, [0, 1]) is None
    np.savez_compressed(tmp_path / "confusions.npz", confusions=each)
    text = runs.resampled_scores(tmp_path, [0, 1, 2])
    assert text is not None and text == runs.resampled_scores(tmp_path, [0, 1])
    scores = np.array([int(word) for word in text.split()]) / 100
    whole = Scores(torch.from_numpy(each.sum(axis=0).astype(np.int64))).mean_iou_percent([0, 1])
    assert len(scores) == runs.RESAMPLES and whole is not None
    assert abs(scores.mean() - whole) < scores.std() < 5
    # Whatever rows hold, their images are drawn alike: a row that is better by as much everywhere.
    better = each.copy()
    better[:, [0, 1], [0, 1]] += 9
    np.savez_compressed(tmp_path / "confusions.npz", confusions=better)
    gains = [int(word) / 100 for word in (runs.resampled_scores(tmp_path, [0, 1]) or "").split()]
    assert np.std(np.array(gains) - scores) < 0.7 * scores.std()


@pytest.mark.parametrize(
    ("changes", "section", "folder", "words"),
    [
        ({}, "toy", "toy", ""),
        ({"target": "night"}, "methods-night", "night", "--target night --method all"),
        ({"target": "carla-to-kitti", "root": Path("/data")}, *["carla-to-kitti"] * 2,
         "--target carla-to-kitti --root <folder of the sets>"),
        ({"target": "day-to-dusk", "steps": 300}, "day-to-dusk", "day-to-dusk-300-steps",
         "--target day-to-dusk --steps 300"),
        ({"method": ("all",)}, "methods", "toy", "--method all"),
        ({"target": "carla-to-kitti", "method": ("dacs",)}, "methods-carla-to-kitti",
         "carla-to-kitti", "--target carla-to-kitti --method all"),
    ],
)  # fmt: skip
def test_what_is_asked_for_decides_where_results_go(changes, section, folder, words):
    asked = Options(**changes)
    assert (asked.section, asked.folder.name) == (section, folder)
    assert asked.command == f"python -m reference.ablate --jobs 2 {words}".strip()
    assert "methods" not in section or section in tables.METHODS.values()


def test_rounds_of_fewer_steps_stay_as_long_as_they_were() -> None:
    adaptation = Options(steps=300).preset(1).adaptation
    assert (adaptation.iterations, adaptation.rounds) == (300, 3)


def test_rows_are_run_folders_that_are_reused_and_told(options, capsys, monkeypatch):
    assert run(options) == f"Wrote {options.docs}/results/toy.json and {options.docs}/results.md"
    folder = options.folder / "seed0"
    assert {path.name for path in folder.iterdir()} == {SOURCE, "entropy_only", "bicl"}
    assert (folder / "bicl" / "settings.json").is_file()
    stored = json.loads((options.docs / "results" / "toy.json").read_text())
    assert [row["row"] for row in stored["rows"]] == [SOURCE, "entropy_only", "bicl"]
    assert stored["images"] == {"source": 6, "target": 6, "test": 5} and stored["split"] == "test"
    for row in stored["rows"]:
        assert 0 <= row["miou"] <= 100 and row["seconds"] > 0
        assert row["share_ratio_max"] >= row["share_ratio_min"] >= 0
        assert row["miou"] == pytest.approx(sum(row["iou"].values()) / len(row["iou"]))
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert train_missing(replace(options, rows=("bicl", "self_training"))) == []
    assert "2 of 3 rows are stored with these settings: reused." in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in before} == before
    # Rows of the same source network stay beside new ones; those of another are not replaced.
    fewer = replace(options, runs=options.runs.with_name("other"), rows=(SOURCE,))
    shutil.copytree(options.runs / "data", fewer.runs / "data")
    shutil.copytree(folder / SOURCE, fewer.folder / "seed0" / SOURCE)
    monkeypatch.setattr(runs, "train_all", lambda *_: pytest.fail("nothing is missing"))
    path = options.docs / "results" / "toy.json"
    before = path.read_bytes()
    assert store_tables(fewer) == f"Wrote {path} and {options.docs}/results.md"
    assert path.read_bytes() == before
    other = json.loads(before)
    other["rows"][0]["iou"]["road"] += 1
    path.write_text(json.dumps(other))
    assert store_tables(fewer).startswith(f"{path} is left as it is: it holds 3 rows of toy, ")
    assert json.loads(path.read_text()) == other


@pytest.mark.parametrize(("part", "changes", "told"), [
    ("source", {"iterations": 5}, "source.iterations: 4 -> 5"),
    # A run may go on at another size, but a table compares scores of one.
    ("reporting", {"size": (40, 64)}, r"reporting.size: \[32, 64\] -> \[40, 64\]"),
])  # fmt: skip
def test_rows_of_other_settings_are_refused_and_kept(options, monkeypatch, part, changes, told):
    asked = replace(options, rows=(SOURCE,))
    run(asked)
    path = options.folder / "seed0" / SOURCE
    before = contents(path)

    def otherwise(target: str, seed: int, **where: Any) -> Settings:
        settings = few(target, seed, **where)
        return replace(settings, **{part: replace(getattr(settings, part), **changes)})

    monkeypatch.setattr(targets, "target_settings", otherwise)
    with pytest.raises(ValueError, match=f"{path} to hold .*{told}. Hint: move"):
        train_missing(asked)
    assert contents(path) == before


def test_a_row_that_diverges_is_told_and_the_others_are_kept(options, monkeypatch, capsys):
    sentence = "train: expected a finite loss, got entropy = nan at iteration 1 of round 0."
    trained = runs.train_run

    def diverge(settings: Settings, folder: Path) -> str | None:
        return sentence if folder.name == "entropy_only" else trained(settings, folder)

    monkeypatch.setattr(runs, "train_run", diverge)
    problems = train_missing(options)
    assert problems == [f"{options.folder}/seed0/entropy_only: {sentence}"]
    assert f"failed: {problems[0]}" in capsys.readouterr().out
    assert [run.row for run in stored_records(options)] == [SOURCE, "bicl"]
    # What starts from a run that failed is left out.
    shutil.rmtree(options.folder)
    other = replace(options, steps=2)
    monkeypatch.setattr(runs, "train_run", lambda settings, folder: "no")
    assert train_missing(other) == [f"{other.folder}/seed0/{SOURCE}: no"]


def test_methods_are_rows_beside_the_control_and_go_into_a_part_of_their_own(options):
    asked = replace(options, rows=(), method=("dacs",))
    assert run(asked).startswith("Wrote")
    stored = json.loads((options.docs / "results" / "methods.json").read_text())
    assert {row["row"] for row in stored["rows"]} == {*BESIDE_METHODS, f"{METHOD}dacs"}
    assert f"| {METHODS['dacs'].label} |" in (options.docs / "results.md").read_text()
    assert (options.docs / "pictures" / "methods.svg").read_text().startswith("<svg")
    assert not (options.docs / "results" / "toy.json").exists()


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_numbers(options: Options) -> None:
    run(options)
    beside = replace(options, jobs=2, runs=options.runs.with_name("other"))
    shutil.copytree(options.runs / "data", beside.runs / "data")
    run(beside)
    assert scores(beside) == scores(options)
