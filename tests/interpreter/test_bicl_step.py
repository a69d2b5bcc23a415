"""A step of `BiCL` that kernels take whole equals the one of its parts, values and gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast.bicl import module
from protocontrast.kernels import totals
from tests.bicl_steps import batch, made

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "without calibration": {"calibrate": False},
    "similarities": {"measure": "similarity", "calibrate": False, "threshold": 0.9},
    "unit rows": {"normalize": "prototypes", "bias_warmup": "copy"},
    "unit features": {"normalize": "features", "measure": "similarity"},
    "classes alike": {"balance": "class", "weights": (0.5, 2.0)},
    "floor": {"absent": "floor", "weights": (0.0, 1.0)},
}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[bool]]:
    """Lets steps be taken whole or in parts, and tells which of them were whole."""
    whole_step = module.whole_step

    def take(whole: bool) -> list[bool]:
        steps: list[bool] = []

        def step(*arguments: Any) -> Any:
            found = whole_step(*arguments) if whole else None
            steps.append(found is not None)
            return found

        monkeypatch.setattr(module, "whole_step", step)
        return steps

    return take


def steps(
    kind: str, dtype: torch.dtype = torch.float32, backend: str = "triton", **settings: Any
) -> list[Tensor]:
    """All that three steps give, their gradients and the state that they leave."""
    bicl, found = made(backend=backend, **settings), []
    for seed in range(3):
        source, labels, target, static = batch(seed, kind)
        leaves = [value.to(dtype).requires_grad_() for value in (source, target)]
        out = bicl(leaves[0], labels, leaves[1], static)
        mixed = out.loss + 0.3 * out.target_to_source - 0.2 * out.source_to_target
        found += [*out, *torch.autograd.grad(mixed, leaves, retain_graph=True)]
        found += torch.autograd.grad(out.loss, leaves)
    return [*found, *bicl.state_dict().values()]


def assert_alike(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize(
    ("name", "kind"),
    # Each setting with labels of one kind, in turns; make test-all has both.
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] * ((i + j) % 2))
        for i, name in enumerate(SETTINGS)
        for j, kind in enumerate(["grid", "image"])
    ],
)
def test_whole_and_in_parts(name: str, kind: str, taken: Callable[[bool], list[bool]]) -> None:
    whole = taken(True)
    found = steps(kind, **SETTINGS[name])
    assert whole == [True] * 3
    taken(False)
    assert_alike(found, steps(kind, **SETTINGS[name]), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes(dtype: torch.dtype, taken: Callable[[bool], list[bool]]) -> None:
    whole = taken(True)
    found = steps("grid without static", dtype)
    assert whole == [True] * 3
    taken(False)
    assert_alike(found, steps("grid without static", dtype), rtol=1e-3, atol=1e-4)


def test_as_the_specification() -> None:
    found, expected = (steps("grid", torch.float64, backend) for backend in ("triton", "naive"))
    assert_alike(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {"prototypes": "batch"},
        {"bank_update": "after"},
        {"temperature": torch.tensor(0.2, requires_grad=True)},
    ],
)
def test_steps_that_are_taken_in_parts(
    settings: dict[str, Any], taken: Callable[[bool], list[bool]]
) -> None:
    whole = taken(True)
    bicl = made(backend="triton", **settings)
    source, labels, target, static = batch(0, "grid")
    bicl(source.float(), labels, target.float(), static)
    assert not any(whole)


def test_a_class_that_is_not_finite_is_skipped() -> None:
    source, labels, target, static = batch(0, "grid")
    labels[:, 0, 0] = 0
    source[:, 1, 0, 0] = torch.inf
    both = [made(backend=backend) for backend in ("triton", "naive")]
    for bicl in both:
        bicl(source.float(), labels, target.float(), static)
    assert both[0].source_bank.skipped[0] == 1
    for one, other in zip(*(bicl.state_dict().values() for bicl in both), strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_of_gradients() -> None:
    source, labels, target, static = batch(0, "grid")
    leaves = [value.float().requires_grad_() for value in (source, target)]
    loss = made(backend="triton")(leaves[0], labels, leaves[1], static).loss
    several = torch.tensor([1.0, -2.0])
    found = torch.autograd.grad(loss, leaves, several, is_grads_batched=True, retain_graph=True)
    one = torch.autograd.grad(loss, leaves)
    for batched, alone in zip(found, one, strict=True):
        torch.testing.assert_close(batched, several.reshape(-1, 1, 1, 1, 1) * alone)


def test_a_gradient_of_a_gradient_is_refused() -> None:
    source, labels, target, static = batch(0, "grid")
    leaves = [value.float().requires_grad_() for value in (source, target)]
    loss = made(backend="triton")(leaves[0], labels, leaves[1], static).loss
    slopes = torch.autograd.grad(loss, leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        slopes[0].sum().backward()


def test_ranks_that_share_their_banks(
    taken: Callable[[bool], list[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks that have the same batch: sums and counts are doubled, means are not."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value, group: value.mul_(2))
    whole = taken(True)
    found = steps("grid")
    assert whole == [True] * 3
    taken(False)
    assert_alike(found, steps("grid"), rtol=2e-5, atol=1e-6)


def test_more_pixels_than_one_program_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = steps("grid")
    monkeypatch.setattr(totals, "MOST", 4)
    assert_alike(steps("grid"), expected, rtol=1e-6, atol=1e-7)


def test_an_empty_target(taken: Callable[[bool], list[bool]]) -> None:
    source, labels, target, _ = batch(0, "grid")
    source, target = source.float().requires_grad_(), target.float()[:0].requires_grad_()
    found = []
    for whole in (True, False):
        taken(whole)
        out = made(backend="triton")(source, labels, target)
        found.append([*out, *torch.autograd.grad(out.loss, (source, target))])
    assert_alike(*found)
