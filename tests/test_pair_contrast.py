"""`pair_contrast`: eager equals `naive`, and `naive` equals loops over pairs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import pair_contrast
from protocontrast.calls import PairRolesCall
from protocontrast.eager import pair_contrast as eager
from tests.agreement import values_and_gradients
from tests.launching import Largest
from tests.operator_calls import pairs
from tests.pair_cases import Case, cases, looped

BACKENDS = ["eager", "naive"]
LOOPED = {
    "keys": Case(),
    "self": Case(exclude_self=True),
    "negatives": Case(negatives=7),
    "weights": Case(anchor_weight=torch.float32),
    "one class": Case(label_kind="one_class"),
}


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize(
    ("similarity", "temperature"), [("cosine", 0.1), ("cosine", 0.001), ("euclidean", 0.3)]
)
@pytest.mark.parametrize("name", LOOPED)
def test_seams(
    name: str,
    similarity: str,
    temperature: float,
    denominator: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiles of a few pairs; so low a temperature needs the peak of each."""
    monkeypatch.setattr(eager, "BLOCK", 3)
    monkeypatch.setattr(eager, "TILE", 4)
    how = {"temperature": temperature, "denominator": denominator, "similarity": similarity}
    pairs(LOOPED[name]._replace(**how)).assert_agrees("eager")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("name", LOOPED)
def test_loops_over_pairs(name: str, similarity: str, denominator: str, backend: str) -> None:
    case = LOOPED[name]._replace(
        dtype=torch.float64, key_dtype=torch.float64, similarity=similarity,
        denominator=denominator, temperature=0.5, reduction="none",
    )  # fmt: skip
    call = {**case.call(), "backend": backend}
    found = values_and_gradients(pair_contrast, call, case.wanted, 1)
    expected = values_and_gradients(lambda **call: looped(call), call, case.wanted, 1)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_a_negative_that_is_nan_is_read_by_anchors_of_other_classes(
    denominator: str, backend: str
) -> None:
    keys = torch.eye(4)[[0, 1, 2]]
    keys[2] = torch.nan
    call = torch.eye(4)[:3], torch.tensor([0, 1, 2]), keys, torch.tensor([0, 1, 1])
    found, expected = (
        pair_contrast(*call, denominator=denominator, reduction="none", backend=one)
        for one in (backend, "naive")
    )
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@given(data=st.data())
def test_order_and_names_of_classes_do_not_matter(denominator: str, data: st.DataObject) -> None:
    case = data.draw(cases(denominator=denominator, exclude_self=False, dtype=torch.float64))
    call = case._replace(spoilt=None, label_dtype=(torch.int64, 255), reduction="none").call()
    generator = torch.Generator().manual_seed(case.seed)
    to_anchors = torch.randperm(case.anchors, generator=generator)
    to_keys = torch.randperm(case.keys, generator=generator)
    names = torch.cat([torch.randperm(999, generator=generator) - 1000, torch.tensor([255])])
    shuffled = {
        **call,
        "anchors": call["anchors"][to_anchors],
        "anchor_labels": names[call["anchor_labels"].clamp(max=999)][to_anchors],
        "keys": call["keys"][to_keys],
        "key_labels": names[call["key_labels"].clamp(max=999)][to_keys],
    }
    for labels, order in (("anchor_labels", to_anchors), ("key_labels", to_keys)):
        ignored = call[labels][order] == 255
        shuffled[labels] = torch.where(ignored, 255, shuffled[labels])
    if case.negatives is not None:
        ignored = call["negative_labels"] == 255
        renamed = names[call["negative_labels"].clamp(max=999)]
        shuffled["negative_labels"] = torch.where(ignored, 255, renamed)
    if case.anchor_weight is not None:
        shuffled["anchor_weight"] = call["anchor_weight"][to_anchors]
    found, expected = pair_contrast(**shuffled), pair_contrast(**call)[to_anchors]
    # Sums of another order, of terms as large as the largest score.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 / case.temperature)


def test_a_bank_that_moves_before_backward_is_noticed() -> None:
    call = Case().call()
    leaf = call["anchors"].requires_grad_()
    loss = pair_contrast(**call)
    call["keys"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaf)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_pairs_are_never_held(exclude_self: bool, similarity: str) -> None:
    """A x K is 4 million numbers here; the largest that appears is a tile, or the rows."""
    call = Case(anchors=2048, keys=2048, depth=3, exclude_self=exclude_self).call()
    settings = similarity, 0.1, False, exclude_self, 255
    rows = call["anchors"], call["anchor_labels"], call["keys"], call["key_labels"]
    with Largest(Tensor.numel) as watch:
        roles = PairRolesCall(*rows, call["key_labels"], None, *settings)
        _, _, statistics = eager.pair_contrast(roles)
        eager.pair_contrast_backward(torch.ones(2048), roles, (True, True), statistics)
    assert 0 < watch.largest <= eager.BLOCK * eager.TILE
