"""Run the notebooks of docs/notebooks/ and keep what they print and draw: `make notebooks`.

Readers see outputs on the site and on GitHub without running anything, and the site is built
without the packages that a notebook needs. A notebook remembers which code its outputs are of
(tests/notebook_cells.py), so that a test can tell when they are out of date.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tests.notebook_cells import FOLDER, code_of

ROOT = FOLDER.parents[1]
# Where torchvision's operators are missing, the kernel needs what the tests have.
FIRST = "from tests.integrations.beside_cpu_torch import stand_in; stand_in(); del stand_in"
COLOURS = 128
"""Of a kept picture: drawn streets look the same in these, and take a third of the place."""


def executed(path: Path) -> Any:
    """A notebook after a run of all of its cells; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(ROOT)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={FIRST}"],
    )  # fmt: skip
    return client.execute()


def in_few_colours(picture: str) -> str:
    """A PNG, as notebooks hold it, with a palette."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    kept = io.BytesIO()
    image.quantize(COLOURS).save(kept, "PNG", optimize=True)
    return base64.b64encode(kept.getvalue()).decode()


def main(names: list[str]) -> None:
    for path in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        notebook = executed(path)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            if "outputs" in cell:
                # Warnings name folders of the machine.
                cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "image/png" in data:
                    output.data = {"image/png": in_few_colours(data["image/png"])}
        notebook.metadata["outputs_of"] = code_of(notebook.cells)
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
