"""`bidirectional_contrast` as one node of autograd on the CPU: equal to what it is composed of."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

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


@given(data=st.data())
def test_it_is_the_composition(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([None, (18, 25)]))
    call = call_of(data.draw(seeds), size=size, layout=data.draw(layouts))
    call |= {
        "pairwise": data.draw(st.booleans()),
        "absent": data.draw(st.sampled_from(["mask", "floor"])),
        "temperature": data.draw(st.sampled_from([0.1, 0.7])),
    }
    wanted = data.draw(st.sampled_from([SIDES, SIDES[:1], SIDES[1:]]))
    call |= {side: call[side].detach() for side in SIDES if side not in wanted}
    factors = data.draw(st.sampled_from([(1.0, 1.0), (0.3, 2.0), (1.0, 0.0), (0.0, -1.0)]))
    with small_tiles():
        assert_same(taken(call, factors), composed(call, factors))


def test_the_comparison_can_fail() -> None:
    call = call_of(1)
    with pytest.raises(AssertionError):
        assert_same(taken(call, (1.0, 0.5)), composed(call, (1.0, 1.0)))


def test_it_is_one_node() -> None:
    call = call_of(1)
    found = bidirectional_contrast(**call)
    assert found.target_to_source.grad_fn is found.source_to_target.grad_fn
    others = [{"backend": "naive"}, {side: call[side].half() for side in SIDES}]
    for other in others:
        found = bidirectional_contrast(**(call | other))
        assert found.target_to_source.grad_fn is not found.source_to_target.grad_fn


def test_bfloat16() -> None:
    call = call_of(1, dtype=torch.bfloat16)
    wide = call | {side: call[side].detach().double().requires_grad_() for side in SIDES}
    found = taken(call, (0.7, 1.0))
    assert all(gradient.dtype == torch.bfloat16 for gradient in found[1])
    for one, truth in zip(found[1], taken(wide, (0.7, 1.0))[1], strict=True):
        error = (one.double() - truth).abs().max() / truth.abs().max()
        assert error < 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("pairwise", [True, False])
def test_a_kept_graph_gives_the_same_gradient_again(pairwise: bool) -> None:
    call = call_of(1) | {"pairwise": pairwise}
    loss = bidirectional_contrast(**call).loss
    leaves = [call[side] for side in SIDES]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    before = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.fill_(7)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), before, rtol=0, atol=0)


def test_a_batch_of_upstream_gradients() -> None:
    call = call_of(1)
    found = bidirectional_contrast(**call)
    both = torch.stack([found.target_to_source, found.source_to_target])
    leaves = [call[side] for side in SIDES]
    rows = torch.autograd.grad(
        both, leaves, torch.eye(2, dtype=both.dtype), is_grads_batched=True, retain_graph=True
    )
    for row in range(2):
        single = torch.autograd.grad(both[row], leaves, retain_graph=True)
        for batched, one in zip(rows, single, strict=True):
            torch.testing.assert_close(batched[row], one)


def test_gradcheck() -> None:
    call = call_of(3, grid=(2, 3))

    def directions(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        found = bidirectional_contrast(
            **(call | dict(zip(SIDES, (source, target), strict=True)) | {"temperature": 0.5})
        )
        return found.target_to_source, found.source_to_target

    assert torch.autograd.gradcheck(directions, tuple(call[side] for side in SIDES))


def test_a_gradient_of_the_gradient_raises() -> None:
    call = call_of(1)
    loss = bidirectional_contrast(**call).loss
    (gradient,) = torch.autograd.grad(loss, call[SIDES[0]], create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.square().sum().backward()
