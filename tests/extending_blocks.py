"""The blocks of docs/extending.md by their headings, and images for them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def sections(text: str) -> dict[str, list[str]]:
    """Heading -> the blocks of Python below it, where there are any."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^#+ ", text, flags=re.MULTILINE):
        blocks = re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
        if blocks:
            found[part.partition("\n")[0]] = blocks
    return found


# A comment in a block of code begins like a heading; these have none at the start of a line.
BLOCKS = sections(DOCUMENT.read_text("utf-8"))
IN_PACKAGES = {
    "timm": "timm",
    "PyTorch Lightning": "lightning",
    "Accelerate": "accelerate",
    "Transformers": "transformers",
    "MMSegmentation": "mmsegmentation",
    "segmentation-models-pytorch": "segmentation_models",
    "MONAI": "monai",
    "TorchMetrics": "torchmetrics",
}
"""Heading of a recipe, and what its files in tests/integrations/ are called."""


def loaded(heading: str, known: dict[str, Any] | None = None) -> ModuleType:
    """A module of the blocks below a heading."""
    module = ModuleType("extending")
    vars(module).update(known or {})
    for number, block in enumerate(BLOCKS[heading]):
        code = compile(block, f"{heading}, block {number}", "exec", dont_inherit=True)
        exec(code, vars(module))
    return module


def run(heading: str, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The names that the blocks below a heading leave behind."""
    return vars(loaded(heading, known))


def install(monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def scenes(seed: int, images: int = 2, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32) of cells of one colour per class, and their labels; 4 pixels a cell."""
    random = torch.Generator().manual_seed(seed)
    cells = torch.randint(6, (images, 8, 8), generator=random)
    labels = cells.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    colours = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    noise = 0.05 * torch.randn(images, 3, 32, 32, generator=random)
    return colours[labels].movedim(-1, 1) + noise + shift, labels


def half_ignored(labels: Tensor) -> Tensor:
    """The upper half of the first image and all of the second have no label."""
    labels = labels.clone()
    labels[0, :16], labels[1] = 255, 255
    return labels
