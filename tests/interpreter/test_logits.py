"""The logits kernels equal `naive`, in value and every gradient, for calls of any form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import prototype_logits
from tests.agreement import assert_agrees, similarity_scales
from tests.interpreter.small_spans import span_budget
from tests.strategies import ContrastCase, contrast_cases, rows_of, seeds
from tests.test_logits import NAMES

WANTED = [("features",), ("prototypes",), ("features", "prototypes")]
SIMILARITIES = ["cosine", "dot", "euclidean"]


def assert_case_agrees(case: ContrastCase, wanted: tuple[str, ...], upstream_seed: int) -> None:
    everything = {**case.tensors(), **case.settings}
    call = {name: everything[name] for name in NAMES}
    # Upstream gradients are standard normal: four times their number bounds a pixel's sum.
    slope = torch.full((len(rows_of(call["features"])),), 4.0 * case.num_classes)
    scales = similarity_scales(call, slope, case.similarity, case.temperature)
    assert_agrees(
        prototype_logits, call, wanted, scales=scales, upstream_seed=upstream_seed,
        backend="triton",
    )  # fmt: skip


@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(data=st.data())
def test_any_call(similarity: str, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(similarity=similarity, spoilt=None))
    assert_case_agrees(case, data.draw(st.sampled_from(WANTED)), data.draw(seeds))


@pytest.mark.parametrize("slot_bytes", [0, 2**30])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_sums_over_one_and_over_many_spans(similarity: str, slot_bytes: int) -> None:
    case = ContrastCase(0, (2, 76, 259), 5, similarity=similarity, temperature=1.0)
    with span_budget(slot_bytes):
        assert_case_agrees(case, WANTED[-1], 1)
