"""Notebooks run, and the outputs kept in them are those of their code."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.notebook_cells import FOLDER, code_of, run_cells

STREETS, SUPERVISED = FOLDER / "adapt_drawn_streets.ipynb", FOLDER / "supervised_losses.ipynb"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_KIB = 700


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def test_these_are_the_notebooks() -> None:
    assert NOTEBOOKS == [STREETS, SUPERVISED]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_of_the_code_beside_them(path: Path) -> None:
    notebook = read(path)
    # After a change: make notebooks.
    assert notebook["metadata"]["outputs_of"] == code_of(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds == {"stream", "display_data"}
    assert path.stat().st_size <= MOST_KIB * 1024


def test_other_code_has_another_fingerprint() -> None:
    cells = read(STREETS)["cells"]
    other = copy.deepcopy(cells)
    next(cell for cell in other if cell["cell_type"] == "code")["source"][0] += " "
    assert code_of(other) != code_of(cells)


def test_the_streets_run_with_few_steps() -> None:
    few = {"SCENES": 8, "TESTS": 4, "WARM_UP": 3, "STEPS": 4, "ROUNDS": 2}
    names = run_cells(read(STREETS)["cells"], **few)
    assert list(names["scores"]) == ["source only", "control", "BiCL"]
    assert all(score.nanmean() > 0 for score in names["scores"].values())
    assert len(names["notes"]) == 4
    assert all(0 < coverage <= 1 for coverage, _ in names["notes"])
    control, adapted = (list(net.parameters()) for net in names["networks"].values())
    assert not all(map(torch.equal, control, adapted))


@pytest.mark.slow
def test_the_streets_gain_as_they_say() -> None:
    names = run_cells(read(STREETS)["cells"])
    mean = {name: score.nanmean() for name, score in names["scores"].items()}
    assert mean["BiCL"] > mean["control"] + 2
    assert mean["BiCL"] > mean["source only"] + 4
