"""`class_statistics`: eager equals `naive`, both equal torch's variance, spoilt pixels stay."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import class_prototypes, class_statistics, naive
from protocontrast.calls import ClassSquaresCall
from tests.agreement import widened
from tests.operator_calls import MEANS
from tests.small_tiles import small_tiles
from tests.strategies import NAN, label_map, normal, rows_of, seeds
from tests.tolerance import assert_within

BACKENDS = ["eager", "naive"]


@given(call=MEANS.map(lambda drawn: drawn.given))
def test_any_call(call: dict[str, Any]) -> None:
    with small_tiles():
        ours = class_statistics(**call, backend="eager")
        means = class_prototypes(**call, backend="eager")
    plain = class_statistics(**call, backend="naive")
    truth = class_statistics(**widened(call), backend="naive")
    scale = max(1.0, float(call["features"].double().square().max())) if ours.count.any() else 1.0
    for mine, theirs, exact in zip(ours, plain, truth, strict=True):
        assert_within(mine, theirs, exact, scale=scale)
    assert torch.equal(ours.count, means.count)
    assert torch.equal(ours.present, means.present)
    assert (ours.variance >= 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=seeds, shape=st.sampled_from([(20, 3), (2, 3, 11)]))
def test_torch_variance(backend: str, seed: int, shape: tuple[int, ...]) -> None:
    features = normal(seed, shape) * 3 + 7
    labels = label_map(seed, (shape[0], *shape[2:]), 4)
    found = class_statistics(features, labels, 4, backend=backend)
    for c in range(4):
        rows = rows_of(features)[labels.flatten() == c]
        expected = rows.var(dim=0, unbiased=False) if len(rows) else torch.zeros(3).double()
        torch.testing.assert_close(found.variance[c], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_repetition_is_weight(backend: str) -> None:
    features, labels = normal(0, (9, 4)), label_map(0, (9,), 3, "full")
    times = torch.arange(9) % 4
    weighted = class_statistics(features, labels, 3, pixel_weight=times.double(), backend=backend)
    repeated = class_statistics(
        features.repeat_interleave(times, 0), labels.repeat_interleave(times), 3, backend=backend
    )
    torch.testing.assert_close(weighted, repeated, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_mean_costs_no_digits(backend: str) -> None:
    features = normal(0, (500, 2), torch.float32) * 0.01 + 1000
    found = class_statistics(features, torch.zeros(500).long(), 1, backend=backend)
    expected = features.double().var(dim=0, unbiased=False)
    torch.testing.assert_close(found.variance[0].double(), expected, rtol=1e-3, atol=0)


def test_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 5.0], [NAN, 1.0]]).double()
    labels, weight = torch.tensor([0, 0, 1, 255]), torch.tensor([1.0, 3.0, 2.0, 1.0]).double()
    means = torch.tensor([[2.5, 3.0], [5.0, 5.0]]).double()
    call = ClassSquaresCall(features, labels, weight, means, False, 255)
    squares = naive.class_squares(call)
    assert squares.tolist() == [[1.5**2 + 3 * 0.5**2, 9.0 + 3.0], [0.0, 0.0]]


def test_no_gradient_and_any_memory_format() -> None:
    features = normal(0, (2, 4, 3, 5), torch.float32).requires_grad_()
    labels = label_map(0, (2, 3, 5), 3)
    found = class_statistics(features, labels, 3)
    assert not found.mean.requires_grad
    assert not found.variance.requires_grad
    other = class_statistics(features.to(memory_format=torch.channels_last), labels, 3)
    torch.testing.assert_close(other.variance, found.variance)
