"""The probe counts what it says, reads what a run kept, and changes nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reference.data.batches import passes
from reference.data.checking import require_given
from reference.data.classes import IGNORE
from reference.data.sets import Sets
from reference.probe import Labels, Options, Probe, probe
from reference.run.folder import as_plain, from_plain
from reference.run.ranks import Ranks
from reference.run.state import State
from reference.settings import Settings
from tests.reference.tiny_runs import SIZE, changed, held, run

CONTRAST = {"measure": "similarity", "threshold": 0.78, "calibrate": True}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """A run of the small network with checkpoints of several moments, and scenes of its own."""
    place = tmp_path_factory.mktemp("probe")
    settings = changed(
        network={"kind": "toy"}, data={"root": place / "scenes"}, reporting={"keep": 9}
    )
    contrast = replace(settings.adaptation.contrast, **CONTRAST)
    settings = changed(settings, adaptation={"contrast": contrast})
    assert run(settings, place / "run")
    return place / "run", settings


def of_kind(seen: Probe, kind: str, checkpoint: Path) -> Labels:
    return next(f for f in seen.labels_at(checkpoint, Ranks()) if f.name.startswith(kind))


def test_coverage_accuracy_and_shares_are_those_of_pixels_with_a_truth() -> None:
    # Rows: two classes, then pixels without a truth; the last column has no label.
    labels = Labels("by hand", np.array([[3, 1, 4], [2, 0, 0], [50, 50, 50]]))
    assert labels.coverage == pytest.approx(6 / 10)
    assert labels.accuracy == pytest.approx(3 / 6)
    assert labels.shares.tolist() == pytest.approx([5 / 6, 1 / 6])
    blind = Labels("no truth", np.array([[0, 0, 0], [0, 0, 0], [6, 2, 8]]))
    assert (blind.coverage, blind.accuracy) == (0.5, 0.0)
    assert blind.shares.tolist() == [0.75, 0.25]


def test_static_labels_cover_what_the_run_says(adapted: tuple[Path, Settings]) -> None:
    path, settings = adapted
    seen = Probe(path, settings)
    ((number, labels),) = seen.static_labels()
    said = json.loads((path / "labels" / "round-1" / "complete.json").read_text())
    assert number == 1 and labels.counts.sum() == 4 * SIZE[0] * SIZE[1]
    given = labels.counts[:, :-1].sum() / labels.counts.sum()
    assert given == pytest.approx(said["coverage"])
    # Some of the images.
    few = Probe(path, settings, 2)
    assert few.chosen == [1, 3]
    assert next(few.static_labels())[1].counts.sum() == 2 * SIZE[0] * SIZE[1]


def test_prototypes_say_what_the_contrast_would_use(adapted: tuple[Path, Settings]) -> None:
    path, settings = adapted
    seen = Probe(path, settings)
    state = State(settings, Sets(settings.data, settings.seed), Ranks(), held(path))
    network, contrast = state.network.eval(), state.method.contrast
    used, right, known = 0, 0, 0
    for batch in passes(seen.images, SIZE, range(4)):
        truth = batch.labels[0]
        with torch.no_grad():
            features = network(batch.images).features
            nothing = torch.full((1, *features.shape[2:]), IGNORE)
            labels = contrast(features, nothing, features, update=False).target_labels
        whole = labels.repeat_interleave(SIZE[0] // labels.shape[1], dim=1)
        whole = whole.repeat_interleave(SIZE[1] // labels.shape[2], dim=2)[0]
        used += int(((whole != IGNORE) & (truth != IGNORE)).sum())
        right += int(((whole == truth) & (truth != IGNORE)).sum())
        known += int((truth != IGNORE).sum())
    found = of_kind(seen, "prototypes", path / "last.pth")
    assert found.coverage == pytest.approx(used / known) and 0.05 < found.coverage < 1
    assert found.accuracy == pytest.approx(right / used)


def test_a_run_is_told_from_its_first_checkpoint_to_its_last_and_left_as_it_was(adapted):
    path, _ = adapted
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    text = probe(Options(run=path))
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before
    assert "DIAGNOSIS: it reads the target's training labels" in text
    assert "4 of 4 images" in text
    rows = [line.split(" | ")[0] for line in text.splitlines()]
    # The warm-up of three steps has no prototypes.
    assert [row for row in rows if row.startswith(("| network", "| prototypes", "| static"))] == [
        "| static, round 1",
        *("| network, iteration 2", "| network, iteration 4", "| prototypes, iteration 4"),
        *("| network, iteration 6", "| prototypes, iteration 6"),
        *("| network, iteration 8", "| prototypes, iteration 8"),
        *("| network, iteration 9", "| prototypes, iteration 9"),
    ]
    assert "network, iteration 9: true class by row" in text
    assert "static, round 1: true class by row" in text
    assert "network, iteration 8: true class by row" not in text


def test_without_labels_of_the_target_coverage_and_shares_are_told_alone(
    adapted, tmp_path, monkeypatch
):
    path, _ = adapted

    def refuse(_: Sets) -> None:
        raise ValueError("data: expected labels, got none.")

    monkeypatch.setattr(Sets, "oracle", property(refuse))
    shutil.copytree(path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    text = probe(Options(run=tmp_path / "run", images=1))
    assert "no labels here: coverage and shares alone." in text and "1 of 4 images" in text
    assert "DIAGNOSIS" not in text and "right" not in text and "truth" not in text
    assert "| prototypes, iteration 9 |" in text
    shares = [line for line in text.splitlines() if line.startswith("| road ")]
    assert len(shares) == 1 and shares[0].count("%") == 3


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^probe: expected the folder of a run, got .* without "):
        probe(Options(run=tmp_path))


def test_settings_come_back_from_what_is_stored(adapted: tuple[Path, Settings]) -> None:
    path, settings = adapted
    stored = json.loads((path / "settings.json").read_text())
    assert from_plain(Settings, stored) == settings
    wide = changed(settings, data={"merge": ("rider=person",)}, reporting={"panel_ids": (1, 2)})
    crops = replace(settings.source.crops, size=None, short_side=(20, 30))
    wide = changed(wide, source={"crops": crops})
    plain = json.loads(json.dumps(as_plain(wide)))
    assert from_plain(Settings, plain | {"no longer": 3}) == wide


def test_the_truth_is_written_as_labels_that_a_run_can_be_given(adapted, tmp_path):
    path, settings = adapted
    folder = tmp_path / "truth"
    probe(Options(run=path, truth=folder))
    images = Sets(settings.data, settings.seed).oracle
    assert sorted(file.stem for file in folder.iterdir()) == sorted(images.stems)
    for index, stem in enumerate(images.stems):
        with Image.open(folder / f"{stem}.png") as file:
            assert np.array_equal(np.asarray(file), images.labels(index))
    require_given(folder, Sets(settings.data, settings.seed).target)
    with pytest.raises(ValueError, match=f"probe: expected truth .*{folder}.* Hint: choose"):
        probe(Options(run=path, truth=folder))
