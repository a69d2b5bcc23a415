"""`bidirectional_contrast` as one node of autograd on the CPU: equal to what it is composed of."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import bidirectional_contrast
from protocontrast.ops import bidirectional as operator
from tests.small_tiles import small_tiles
from tests.strategies import laid_out, layouts, normal, seeds

pytestmark = pytest.mark.usefixtures("eager")

SIDES = ("source_features", "target_features")
CLASSES = 4


def call_of(
    seed: int,
    grid: tuple[int, int] = (9, 11),
    size: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float64,
    layout: str = "contiguous",
) -> dict[str, Any]:
    """Two images per domain; class 3 has no target pixel, and every fifth label is ignored."""
    random = torch.Generator().manual_seed(seed)
    call: dict[str, Any] = {"num_classes": CLASSES}
    for offset, side in enumerate(("source", "target")):
        features = laid_out(normal(seed + offset, (2, 5, *grid), dtype), layout)
        labels = torch.randint(0, CLASSES - offset, (2, *(size or grid)), generator=random)
        labels.flatten()[::5] = 255
        call |= {f"{side}_features": features.requires_grad_(), f"{side}_labels": labels}
    return call


def taken(call: dict[str, Any], factors: tuple[float, float] = (1.0, 1.0), **options: Any) -> Any:
    """Both directions, and the gradients of their weighted sum."""
    found = bidirectional_contrast(**call)
    loss = factors[0] * found.target_to_source + factors[1] * found.source_to_target
    leaves = [call[side] for side in SIDES if call[side].requires_grad]
    return [found.target_to_source, found.source_to_target], torch.autograd.grad(
        loss, leaves, **options
    )


def composed(call: dict[str, Any], factors: tuple[float, float] = (1.0, 1.0)) -> Any:
    """The same from class means and contrasts, each with its own gradient."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "served_by", lambda *_: None)
        return taken(call, factors)


def assert_same(found: Any, expected: Any, **tolerance: float) -> None:
    """AssertionError unless values and gradients are close."""
    torch.testing.assert_close([*found[0], *found[1]], [*expected[0], *expected[1]], **tolerance)


@pytest.mark.parametrize("backend", ["eager"])
@given(data=st.data())
def test_any_call_is_the_composition(backend: str, data: st.DataObject) -> None:
    size, dtype = data.draw(
        st.tuples(
            st.sampled_from([None, (18, 25)]), st.sampled_from([torch.float64, torch.float32])
        )
    )
    grid = data.draw(st.sampled_from([(9, 11), (32, 40)]))
    call = call_of(data.draw(seeds), grid, size, dtype, data.draw(layouts)) | {
        "pairwise": data.draw(st.booleans()),
        "absent": data.draw(st.sampled_from(["mask", "floor"])),
        "balance": data.draw(st.sampled_from(["pixel", "class"])),
        "temperature": data.draw(st.sampled_from([0.1, 0.7])),
    }
    wanted = data.draw(st.sampled_from([SIDES, SIDES[:1], SIDES[1:]]))
    call |= {side: call[side].detach() for side in SIDES if side not in wanted}
    factors = data.draw(st.sampled_from([(1.0, 1.0), (0.3, 2.0), (1.0, 0.0), (0.0, -1.0)]))
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {}
    with small_tiles():
        expected = composed(call, factors)
        assert_same(taken({**call, "backend": backend}, factors), expected, **tolerance)


def test_the_comparison_can_fail() -> None:
    call = call_of(1)
    with pytest.raises(AssertionError):
        assert_same(taken(call, (1.0, 0.5)), composed(call, (1.0, 1.0)))


@pytest.mark.parametrize("backend", ["eager"])
def test_it_is_one_node(backend: str) -> None:
    call = call_of(1) | {"backend": backend}
    found = bidirectional_contrast(**call)
    assert found.target_to_source.grad_fn is found.source_to_target.grad_fn
    others = [{"backend": "naive"}, {side: call[side].half() for side in SIDES}]
    for other in others:
        found = bidirectional_contrast(**(call | other))
        assert found.target_to_source.grad_fn is not found.source_to_target.grad_fn


@pytest.mark.parametrize("backend", ["eager"])
def test_bfloat16(backend: str) -> None:
    call = call_of(1, dtype=torch.bfloat16) | {"backend": backend}
    wide = call | {side: call[side].detach().double().requires_grad_() for side in SIDES}
    found = taken(call, (0.7, 1.0))
    assert all(gradient.dtype == torch.bfloat16 for gradient in found[1])
    for one, truth in zip(found[1], taken(wide, (0.7, 1.0))[1], strict=True):
        error = (one.double() - truth).abs().max() / truth.abs().max()
        assert error < 2 * torch.finfo(torch.bfloat16).eps
