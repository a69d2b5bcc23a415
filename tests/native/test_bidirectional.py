"""The bidirectional step in C, and `BiCL` with it: as the eager one, and by no other backend."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast.eager import bidirectional as eager_bidirectional
from protocontrast.eager import class_prototypes as eager_class_prototypes
from protocontrast.eager import contrast as eager_contrast
from protocontrast.eager import target_pass as eager_target_pass
from tests import test_bicl_composed as composition
from tests import test_bidirectional_autograd as any_backend
from tests import test_class_balance as balance
from tests.bicl_steps import made, run
from tests.native.variants import NAMES, variant
from tests.strategies import layouts, seeds

GRIDS = [(9, 11), (32, 40)]


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every call is one of C within these tests."""
    eager = any_backend.call_of
    monkeypatch.setattr(
        any_backend, "call_of", lambda *one, **two: {**eager(*one, **two), "backend": "native"}
    )
    yield


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_it_equals_eager(name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32]))
    call = any_backend.call_of(
        data.draw(seeds), data.draw(st.sampled_from(GRIDS)),
        data.draw(st.sampled_from([None, (18, 25)])), dtype, data.draw(layouts),
    ) | {
        "pairwise": data.draw(st.booleans()),
        "absent": data.draw(st.sampled_from(["mask", "floor"])),
        "balance": data.draw(st.sampled_from(["pixel", "class"])),
        "temperature": data.draw(st.sampled_from([0.1, 0.7])),
    }  # fmt: skip
    sides = any_backend.SIDES
    wanted = data.draw(st.sampled_from([sides, sides[:1], sides[1:]]))
    call |= {side: call[side].detach() for side in sides if side not in wanted}
    factors = data.draw(st.sampled_from([(1.0, 1.0), (0.3, 2.0), (1.0, 0.0), (0.0, -1.0)]))
    expected = any_backend.taken(call, factors)
    with variant(name):
        found = any_backend.taken({**call, "backend": "native"}, factors)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {}
    any_backend.assert_same(found, expected, **tolerance)


@pytest.mark.usefixtures("native")
def test_what_any_backend_does() -> None:
    any_backend.test_it_is_one_node()
    any_backend.test_bfloat16()
    for pairwise in (False, True):
        any_backend.test_a_kept_graph_gives_the_same_gradient_again(pairwise)
    any_backend.test_a_batch_of_upstream_gradients()
    any_backend.test_gradcheck()
    any_backend.test_a_gradient_of_the_gradient_raises()


@pytest.mark.usefixtures("native")
def test_domains_of_two_precisions_are_composed() -> None:
    call = any_backend.call_of(1)
    call["target_features"] = call["target_features"].detach().float().requires_grad_()
    found = any_backend.taken(call)
    any_backend.assert_same(found, any_backend.taken({**call, "backend": "eager"}))


def test_classes_alike() -> None:
    balance.test_a_rare_class_counts_by_its_pixels("native")
    balance.test_ignored_pixels_may_hold_anything("native")
    for bank_update in ("before", "after"):
        balance.test_a_step_of_bicl(bank_update, "native")


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


@pytest.mark.parametrize("name", composition.SETTINGS)
def test_bicl_is_the_composition(name: str) -> None:
    bicl = made(**{"temperature": 0.2, **composition.SETTINGS[name]}, backend="native")
    composition.compare(bicl, composition.KINDS, torch.float32)
