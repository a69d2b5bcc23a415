"""`pixel_prototype_contrast` in C equals `naive`, in value and every gradient, on every variant."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import pixel_prototype_contrast
from protocontrast.native.calls import SIMILARITIES
from tests.agreement import assert_agrees, contrast_scales
from tests.native.variants import NAMES, variant
from tests.strategies import ContrastCase, contrast_cases, seeds

WANTED = [("features",), ("prototypes",), ("features", "prototypes")]


def assert_case_agrees(
    case: ContrastCase, wanted: tuple[str, ...], upstream_seed: int, name: str = NAMES[-1]
) -> None:
    call = {**case.tensors(), **case.settings}
    scales = contrast_scales(call, case.settings, upstream_seed)
    with variant(name):
        assert_agrees(
            pixel_prototype_contrast, call, wanted, scales=scales, upstream_seed=upstream_seed,
            backend="native",
        )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(data=st.data())
def test_any_call(similarity: str, soft: bool, name: str, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(similarity=similarity, soft=soft))
    assert_case_agrees(case, data.draw(st.sampled_from(WANTED)), data.draw(seeds), name)


@pytest.mark.parametrize("absent", ["mask", "floor"])
@pytest.mark.parametrize("presence", ["given", "implied"])
@given(data=st.data())
def test_absent_classes(presence: str, absent: str, data: st.DataObject) -> None:
    fixed = {"similarity": "cosine", "presence": presence, "absent": absent}
    case = data.draw(contrast_cases(**fixed, label_kind="mixed"))
    assert_case_agrees(case, WANTED[-1], data.draw(seeds))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("channels", "classes"), [(512, 512), (257, 19), (1, 150), (5, 13)])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_many_channels_and_classes(
    similarity: str, channels: int, classes: int, layout: str, dtype: torch.dtype
) -> None:
    """Every number of rows that a block can have, and tiles that end in a part of one."""
    case = ContrastCase(
        3, (2, channels, 9, 8), classes, similarity=similarity, dtype=dtype, layout=layout,
        label_dtype=(torch.int64, -100),
    )  # fmt: skip
    for name in NAMES:
        assert_case_agrees(case, WANTED[-1], 5, name)
