"""`frequency_weights`: the released formula, and classes that do not occur."""

import math
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import frequency_weights, pixel_prototype_contrast
from tests.strategies import normal

NUMBERS = st.lists(st.integers(1, 10**7), min_size=2, max_size=19)


@given(numbers=NUMBERS, strength=st.sampled_from([0.05, 0.16, 0.0, -0.05]))
def test_as_bimix_has_it(numbers: list[int], strength: float) -> None:
    logs = [math.log(n) for n in numbers]
    found = frequency_weights(torch.tensor(numbers), strength=strength)
    spread = stdev(logs)
    expected = [1 + strength * (fmean(logs) - one) / spread if spread else 1.0 for one in logs]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_rare_classes_weigh_more() -> None:
    weights = frequency_weights(torch.tensor([10**6, 10**4, 10**2]))
    assert weights.tolist() == sorted(weights.tolist())
    assert weights.mean().item() == pytest.approx(1)


def test_what_multiplies_all_counts_cancels() -> None:
    counts = torch.tensor([5000.0, 300.0, 20.0, 1.0], dtype=torch.float64)
    shares = counts / counts.sum()
    torch.testing.assert_close(frequency_weights(shares), frequency_weights(counts))


@pytest.mark.parametrize("counts", [[0, 0, 0], [7, 0, 0], [7], [3, 3, 3, 3], [0.1, 0.1, 0.1]])
def test_nothing_to_compare_gives_one(counts: list[float]) -> None:
    weights = frequency_weights(torch.tensor(counts))
    assert weights.tolist() == [1.0] * len(counts)


def test_classes_that_do_not_occur_change_nothing() -> None:
    seen = frequency_weights(torch.tensor([100, 10]))
    found = frequency_weights(torch.tensor([0, 100, 0, 10]))
    assert torch.equal(found[[1, 3]], seen)
    assert found[[0, 2]].tolist() == [1.0, 1.0]


def test_no_weight_is_negative() -> None:
    weights = frequency_weights(torch.tensor([10**6, 1, 1, 1]), strength=3.0)
    assert weights[0] == 0
    assert (weights[1:] > 1).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float32])
def test_dtypes(dtype: torch.dtype) -> None:
    weights = frequency_weights(torch.tensor([100, 10, 1], dtype=dtype))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([0.95, 1.0, 1.05]))
    wide = frequency_weights(torch.tensor([100.0, 10.0], dtype=torch.float64))
    assert wide.dtype == torch.float64


def test_nan_in_nan_out_and_no_gradient() -> None:
    counts = torch.tensor([1.0, math.nan], requires_grad=True)
    weights = frequency_weights(counts)
    assert weights.isnan().any()
    assert not weights.requires_grad


def test_they_are_class_weights() -> None:
    weights = frequency_weights(torch.tensor([10, 1]), strength=0.5)
    features, labels = normal(0, (4, 3), torch.float32), torch.tensor([0, 0, 0, 1])
    rows = normal(1, (2, 3), torch.float32)
    each = pixel_prototype_contrast(features, labels, rows, reduction="none")
    found = pixel_prototype_contrast(features, labels, rows, class_weight=weights)
    torch.testing.assert_close(found, (each * weights[labels]).sum() / weights[labels].sum())


def test_where_no_value_is_read_a_wrong_one_gives_nan() -> None:
    weigh = torch.compile(frequency_weights, fullgraph=True, backend="aot_eager")
    assert weigh(torch.tensor([1.0, -1.0, 2.0])).isnan().all()
    assert torch.equal(weigh(torch.tensor([10, 1])), frequency_weights(torch.tensor([10, 1])))
    assert frequency_weights(torch.ones(3, device="meta")).shape == (3,)
