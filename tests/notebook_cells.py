"""The cells of a notebook, run without Jupyter, with other numbers where they are to be quick."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def code_of(cells: list[dict[str, Any]]) -> str:
    """A fingerprint of the code in all cells."""
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def run_cells(cells: list[dict[str, Any]], **parameters: Any) -> dict[str, Any]:
    """The names that the code leaves behind; `parameters` replace those of the cell of that tag."""
    matplotlib.use("Agg")
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        exec(compile("".join(cell["source"]), f"cell {number}", "exec", dont_inherit=True), names)
        if "parameters" in cell["metadata"].get("tags", []):
            assert parameters.keys() <= names.keys()
            names.update(parameters)
    matplotlib.pyplot.close("all")
    return names
