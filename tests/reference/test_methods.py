"""Every method of the registry in the loop of the toy: it trains, repeats, and is short to read."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import pytest
import torch

import reference.methods
from reference.methods.registry import METHODS, build_method
from reference.networks.toy import build_network
from reference.training.config import Adaptation
from reference.training.stages import Trained, adapt
from tests.reference.test_stages import blocks, weights

FOLDER = Path(reference.methods.__file__).parent
LONGEST = 80
"""Lines of a method's file."""
SHARED = {
    "__init__.py", "dacs.py", "passes.py", "settings.py", "registry.py", "relighting.py",
    "translator.py",
}  # fmt: skip
BRIEF = Adaptation(steps=4, rounds=2, source_batch=2, target_batch=2)


def trained(name: str) -> Trained:
    network = build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))
    method = build_method(name, network.feature_dim)
    images = blocks(5, shade=0.6, seed=1).images
    # Methods that do not ask for day images never look at them.
    return adapt(
        network, blocks(6), images, BRIEF, seed=0, method=method, run=name,
        day_images=blocks(5, shade=0.9, seed=1).images,
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_and_repeats(name: str) -> None:
    first, again = trained(name), trained(name)
    moved = weights(first)
    assert moved.isfinite().all()
    assert torch.equal(moved, weights(again))
    losses = first.history.losses
    assert "source_cross_entropy" in losses
    assert all(math.isfinite(v) for series in losses.values() for v in series if v is not None)
    # A term that never had a value, or was always zero, would be no term.
    assert all(any(series) for series in losses.values())


def test_an_unknown_method_is_told_with_the_known_ones() -> None:
    sentence = f"build_method: expected one of {', '.join(METHODS)}, got 'bicle'."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        build_method("bicle", 8)


def test_a_method_is_one_short_file() -> None:
    lengths = {p.name: len(p.read_text("utf-8").splitlines()) for p in FOLDER.glob("*.py")}
    assert {name: n for name, n in lengths.items() if name not in SHARED and n > LONGEST} == {}


def test_every_method_says_what_it_is() -> None:
    for name, entry in METHODS.items():
        assert inspect.getdoc(type(entry.build(8))), name
