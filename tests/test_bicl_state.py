"""`BiCL` as state: what moves it, and what may move between forward and backward."""

import copy
from typing import Any

import pytest
import torch

from tests.bicl_steps import assert_state_is, batch, made, run, state


@pytest.mark.parametrize("how", ["update=False", "eval"])
@pytest.mark.parametrize(
    "settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}, {"calibrate": False}]
)
def test_no_state_changes_without_an_update(settings: dict[str, Any], how: str) -> None:
    bicl = made(**settings)
    run(bicl, 0)
    before = state(bicl)
    if how == "eval":
        bicl.eval()
        first, gradients = run(bicl, 1)
        second, again = run(bicl, 1)
    else:
        first, gradients = run(bicl, 1, update=False)
        second, again = run(bicl, 1, update=False)
    assert_state_is(bicl, before)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, gradients, again))
    bicl.train()
    run(bicl, 1)
    changed = [name for name, value in bicl.state_dict().items() if not value.equal(before[name])]
    assert {"source_bank.prototypes", "target_bank.prototypes", "domain_bias.bias"} <= {*changed}


@pytest.mark.parametrize("reduced", [{}, {"bank_update": "after"}])
@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_the_bank_may_move_between_forward_and_backward(
    backend: Any, reduced: dict[str, Any]
) -> None:
    bicl = made(backend=backend, **reduced)
    for seed in range(2):
        run(bicl, seed)
    twin = copy.deepcopy(bicl)
    _, expected = run(twin, 2)
    source, labels, target, static = batch(2, "grid")
    leaves = [value.float().requires_grad_() for value in (source, target)]
    out = bicl(leaves[0], labels, leaves[1], static)
    bicl.source_bank.reset()
    bicl.target_bank.reset()
    bicl.domain_bias.reset()
    assert all(map(torch.equal, torch.autograd.grad(out.loss, leaves), expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_features_and_modules_keep_the_state_wide(dtype: torch.dtype) -> None:
    bicl = made().to(dtype)
    source, labels, target, static = batch(0, "grid")
    leaves = [value.to(dtype).requires_grad_() for value in (source, target)]
    with torch.autocast("cpu", dtype):
        out = bicl(leaves[0], labels, leaves[1], static)
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    assert leaves[0].grad is not None
    assert leaves[0].grad.dtype == dtype
    assert {value.dtype for value in bicl.state_dict().values()} == {
        torch.float32, torch.float64, torch.bool, torch.int64,
    }  # fmt: skip
