"""`pixel_prototype_contrast`: eager, over several tiles, equals `naive` in value and gradients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import pixel_prototype_contrast
from tests.agreement import assert_agrees, contrast_scales
from tests.small_tiles import small_tiles
from tests.strategies import ContrastCase, contrast_cases, seeds

WANTED = [("features",), ("prototypes",), ("features", "prototypes")]


def assert_case_agrees(case: ContrastCase, wanted: tuple[str, ...], upstream_seed: int) -> None:
    call = {**case.tensors(), **case.settings}
    scales = contrast_scales(call, case.settings, upstream_seed)
    with small_tiles():
        assert_agrees(
            pixel_prototype_contrast, call, wanted, scales=scales, upstream_seed=upstream_seed
        )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@given(data=st.data())
def test_any_call(similarity: str, soft: bool, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(similarity=similarity, soft=soft))
    assert_case_agrees(case, data.draw(st.sampled_from(WANTED)), data.draw(seeds))


@pytest.mark.parametrize("absent", ["mask", "floor"])
@pytest.mark.parametrize("presence", ["given", "implied"])
@given(data=st.data())
def test_absent_classes(presence: str, absent: str, data: st.DataObject) -> None:
    fixed = {"similarity": "cosine", "presence": presence, "absent": absent}
    case = data.draw(contrast_cases(**fixed, label_kind="mixed"))
    assert_case_agrees(case, WANTED[-1], data.draw(seeds))
