"""The kernels of `pair_contrast` equal `naive`, in value and every gradient, for any call."""

from hypothesis import given

from protocontrast import pair_contrast
from tests.agreement import assert_agrees
from tests.pair_cases import Case, cases, scales
from tests.strategies import seeds


def assert_case_agrees(case: Case, upstream_seed: int) -> None:
    call = case.call()
    assert_agrees(
        pair_contrast, call, case.wanted, scales=scales(call, upstream_seed),
        upstream_seed=upstream_seed, backend="triton",
    )  # fmt: skip


@given(case=cases(), upstream_seed=seeds)
def test_any_call(case: Case, upstream_seed: int) -> None:
    assert_case_agrees(case, upstream_seed)
