"""The kernels of `pair_contrast` by distances equal `naive`, in value and every gradient."""

import pytest
import torch
from hypothesis import given

from protocontrast import pair_contrast
from tests.interpreter.test_pair_contrast import assert_case_agrees
from tests.pair_cases import Case, cases
from tests.strategies import seeds


@pytest.mark.slow  # every channel is a step of its own
@given(case=cases(similarity="euclidean"), upstream_seed=seeds)
def test_any_call(case: Case, upstream_seed: int) -> None:
    assert_case_agrees(case, upstream_seed)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_sums_over_many_spans(denominator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from protocontrast.kernels import pairs

    monkeypatch.setattr(pairs, "PROGRAMS", 4096)
    case = Case(
        4, 20, 150, 7, 5, torch.float64, torch.float64, denominator=denominator,
        temperature=0.1, similarity="euclidean", zero_rows=True,
    )  # fmt: skip
    assert_case_agrees(case, 1)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_lengths_at_the_ends(size: float) -> None:
    """Squares of such numbers are none in float32; what takes no part may be larger still."""
    call = Case(6, 9, 12, 4, similarity="euclidean").call()
    call["anchor_labels"][0] = 255
    call["anchors"][0] = float("inf")

    def found(factor: float, backend: str) -> list[torch.Tensor]:
        given = {**call, "temperature": 0.5 * factor, "backend": backend}
        leaves = [(call[name] * factor).requires_grad_() for name in ("anchors", "keys")]
        given["anchors"], given["keys"] = leaves
        loss = pair_contrast(**given)
        return [loss.detach(), *(g * factor for g in torch.autograd.grad(loss, leaves))]

    plain = found(1.0, "naive")
    torch.testing.assert_close(found(size, "triton"), plain, rtol=1e-4, atol=1e-5)
