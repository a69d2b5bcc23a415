"""The transfer kernel equals `naive` for calls of any form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protocontrast import transfer_labels
from tests.strategies import contrast_cases, normal
from tests.test_transfer import KINDS, assert_transfer_agrees


@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("similarity", KINDS)
@given(data=st.data())
def test_any_call(similarity: str, measure: str, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(similarity=similarity, spoilt=None))
    tensors = case.tensors()
    per_class = normal(case.seed, (case.num_classes,)) * 0.3 + 0.4
    threshold = data.draw(st.sampled_from([0.5, -3.0, torch.tensor(0.3), per_class]))
    assert_transfer_agrees(
        {
            "features": tensors["features"],
            "prototypes": tensors["prototypes"],
            "present": tensors["present"],
            "threshold": threshold,
            "measure": measure,
            "similarity": similarity,
            "temperature": case.temperature,
            "ignore_index": data.draw(st.sampled_from([255, -100, 0])),
        },
        backend="triton",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("similarity", KINDS)
def test_ties_go_to_the_lowest_class(similarity: str, dtype: torch.dtype) -> None:
    """Every prototype stands twice; the copies lie in other rows of the matrix product."""
    rows = normal(0, (9, 33), dtype)
    found = transfer_labels(
        normal(1, (1, 33, 40), dtype), torch.cat([rows, rows]), threshold=-math.inf,
        similarity=similarity, backend="triton",
    )  # fmt: skip
    assert int(found.labels.max()) < 9
