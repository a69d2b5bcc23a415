"""`pair_contrast` in C equals `naive` and loops over pairs, on every variant."""

import pytest
import torch
from hypothesis import given

from protocontrast import pair_contrast
from tests import test_pair_contrast as any_backend
from tests import test_pair_distances as distances
from tests.agreement import values_and_gradients
from tests.native.variants import NAMES, variant
from tests.pair_cases import Case, cases
from tests.strategies import seeds

SIMILARITIES = ["cosine", "dot", "euclidean"]
DENOMINATORS = ["negatives", "all"]


@pytest.mark.parametrize("name", NAMES)
@given(case=cases(), upstream_seed=seeds)
def test_any_call(name: str, case: Case, upstream_seed: int) -> None:
    with variant(name):
        any_backend.assert_case_agrees(case, upstream_seed, "native")


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("call", any_backend.LOOPED)
def test_loops_over_pairs(call: str, similarity: str, denominator: str) -> None:
    any_backend.test_loops_over_pairs(call, similarity, denominator, "native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_many_blocks(similarity: str, denominator: str, dtype: torch.dtype) -> None:
    """Blocks of anchors and tiles of keys that end in a part of one, and classes across them."""
    shapes = {"anchors": 211, "keys": 333, "depth": 37, "num_classes": 5}
    for name in NAMES:
        for change in ({}, {"exclude_self": True, "temperature": 0.01}, {"negatives": 131}):
            how = {"similarity": similarity, "denominator": denominator, **shapes, **change}
            case = Case(3, dtype=dtype, key_dtype=dtype, temperature=0.1)._replace(**how)
            with variant(name):
                any_backend.assert_case_agrees(case, 1, "native")


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_who_does_not_count(similarity: str) -> None:
    for denominator in DENOMINATORS:
        any_backend.test_who_does_not_count(denominator, similarity, "native")
    for sizes in ((0, 3, 0), (3, 0, 0), (0, 0, 0), (3, 3, 255), (3, 3, 9)):
        any_backend.test_nothing_counts(*sizes, "native")
    for temperature in (0.1, 1e-3):
        any_backend.test_without_negatives_the_loss_is_zero(temperature, "native")
    distances.test_at_distance_zero_the_gradient_is_zero("native")


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_lengths_at_the_ends(size: float) -> None:
    distances.test_lengths_at_the_ends(size, "native")


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_rows_that_are_nan(denominator: str) -> None:
    """A negative that is NaN is read by all anchors of other classes, and by no others."""
    any_backend.test_a_valid_row_that_is_nan_gives_nan("native")
    keys = torch.eye(4)[[0, 1, 2]]
    keys[2] = torch.nan
    labels, classes = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])
    call = torch.eye(4)[:3], labels, keys, classes
    found, expected = (
        pair_contrast(*call, denominator=denominator, reduction="none", backend=one)
        for one in ("native", "naive")
    )
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isnan().tolist() == [True, True, False]


def test_two_runs_give_the_same_bits() -> None:
    call = {**Case(anchors=300, keys=700, depth=16, reduction="none").call(), "backend": "native"}
    runs = [values_and_gradients(pair_contrast, call, ("anchors", "keys"), 0) for _ in range(2)]
    assert torch.equal(runs[0][0][0], runs[1][0][0])
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in ("anchors", "keys"))
