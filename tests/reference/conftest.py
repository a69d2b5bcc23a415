"""A tiny experiment that is drawn, trained and scored once for all tests that look at results."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reference.ablate import Options
from reference.demo import train_rows
from reference.experiments import tables
from reference.experiments.rows import Row
from reference.experiments.scenario import Scenario, data_folder, load_scenario
from reference.synthetic import Sizes
from reference.training.config import BICL, Data, Experiment, Supervised
from tests.reference.tiny_runs import SEEN, run


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_experiment() -> Experiment:
    return Experiment(
        data=Data(height=32, width=64, sizes=Sizes(6, 6, 2, 5)),
        source=Supervised(steps=4, batch_size=2),
        adaptation=replace(BICL, steps=4, rounds=4, source_batch=2, target_batch=2),
        oracle=Supervised(steps=4, batch_size=2),
    )


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn") / "toy"


@pytest.fixture(scope="session")
def tiny_scenario(tiny_experiment: Experiment, _place: Path) -> Scenario:
    return load_scenario(tiny_experiment, _place)


@pytest.fixture(scope="session")
def tiny_data(tiny_scenario: Scenario, _place: Path) -> Path:
    """The folder of the drawn images; not to be written to."""
    return _place


@pytest.fixture(scope="session")
def tiny_rows(tiny_experiment: Experiment, tiny_scenario: Scenario) -> dict[str, Row]:
    return train_rows(tiny_experiment, tiny_scenario, progress=False)


@pytest.fixture(scope="session")
def seen_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with panels and evaluations; not to be written to."""
    folder = tmp_path_factory.mktemp("seen") / "run"
    assert run(SEEN, folder)
    return folder


@pytest.fixture
def options(tmp_path, tiny_data, tiny_experiment) -> Options:
    """A command over seed 0 whose images are drawn already."""
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    shutil.copytree(tiny_data, data_folder(runs, tiny_experiment))
    docs.mkdir()
    names = (*tables.SECTIONS, "methods")
    markers = (f"<!-- generated: {name} -->\n<!-- end: {name} -->" for name in names)
    (docs / "results.md").write_text("# Results\n\n" + "\n\nBy hand.\n\n".join(markers) + "\n")
    return Options(seeds=(0,), rows=("entropy_only", "bicl"), jobs=1, runs=runs, docs=docs)
