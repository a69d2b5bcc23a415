"""The notebook on segmentation-models-pytorch, whole, in a kernel as its readers have it."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("segmentation_models_pytorch")

from tests.integrations.notebooks import executed
from tests.notebook_cells import FOLDER


def test_the_losses_in_a_supervised_network() -> None:
    cells = executed(FOLDER / "supervised_losses.ipynb").cells
    printed = "".join(
        output.get("text", "") for cell in cells for output in cell.get("outputs", [])
    )
    head, small = re.search(r"by the head ([\d.]+), from the small map ([\d.]+)", printed).groups()
    assert float(head) == pytest.approx(float(small), abs=2e-6)
    rows = {
        name: [float(number) for number in numbers]
        for name, *numbers in re.findall(
            r"^(cross-entropy|with contrast) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE
        )
    }
    assert list(rows) == ["cross-entropy", "with contrast"]
    assert all(score > 20 for scores in rows.values() for score in scores)
