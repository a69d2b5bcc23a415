"""`BiCL` with every part of its step in C: as by hand, and by no other backend."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from protocontrast.eager import bidirectional as eager_bidirectional
from protocontrast.eager import class_prototypes as eager_class_prototypes
from protocontrast.eager import contrast as eager_contrast
from protocontrast.eager import target_pass as eager_target_pass
from tests.bicl_steps import made, run
from tests.test_bicl import KINDS, SETTINGS, compare

EAGER_LEAVES = {
    eager_bidirectional: ("bidirectional_with_gradient", "add_shares"),
    eager_class_prototypes: ("class_sums", "class_sums_backward"),
    eager_contrast: ("contrast", "contrast_backward", "contrast_with_gradient"),
    eager_target_pass: ("target_pass", "scaled"),
}


def refused(*_: Any, **__: Any) -> None:
    raise AssertionError("a leaf of the eager backend is called")


@pytest.fixture
def nothing_eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A leaf of the eager backend that is met raises; operators hold the function itself."""
    for module, names in EAGER_LEAVES.items():
        for name in names:
            monkeypatch.setattr(getattr(module, name), "__code__", refused.__code__)
    yield


@pytest.mark.parametrize("kind", ["grid", "image", "grid without static", "image without static"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bank_update": "after"},
        {"balance": "class"},
        {"balance": "class", "bank_update": "after"},
        {"prototypes": "batch"},
        {"prototypes": "batch", "pairwise": True, "balance": "class"},
        {"normalize": "features", "measure": "similarity"},
    ],
)
@pytest.mark.usefixtures("nothing_eager")
def test_bicl_is_native_throughout(settings: dict[str, Any], kind: str) -> None:
    bicl = made(backend="native", **settings)
    for seed in range(2):
        run(bicl, seed, kind)
    with pytest.raises(AssertionError, match="eager backend"):
        run(made(backend="eager", **settings), 0, kind)


@pytest.mark.parametrize("name", SETTINGS)
def test_bicl_is_the_step_by_hand(name: str) -> None:
    compare(SETTINGS[name], KINDS, dtype=torch.float32, backend="native")
