"""BiCL with published weights: the terms beside its contrast, restated in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE
from reference.methods.bicl import BiCL
from reference.training.adapt_step import Ingredients
from reference.training.config import BICL
from tests.reference.given_outputs import DIM, assert_same, example


def entropy(logits: Tensor) -> Tensor:
    share = logits.softmax(dim=1)
    return -(share * share.log()).sum(dim=1).mean()


def test_the_terms_beside_the_contrast_have_the_released_weights() -> None:
    case = example(0)
    method = BiCL(DIM).double()
    method.begin(case.start)
    losses = method(case.step).losses
    given = case.network.given
    source, target = given.logits[[1, 2]], given.logits[[5, 7]]
    static = method.static_labels
    assert static is not None
    labels = static[[1, 3]].long()
    assert (labels != IGNORE).any()
    expected = {
        "source_cross_entropy": F.cross_entropy(source, case.labels[[1, 2]], ignore_index=IGNORE),
        "static_cross_entropy": 0.3 * F.cross_entropy(target, labels, ignore_index=IGNORE),
        "source_entropy": 0.4 * entropy(source),
        "entropy": 0.4 * 0.3 * entropy(target),
    }
    assert set(losses) == {*expected, "target_to_source", "source_to_target"}
    for name, loss in expected.items():
        assert_same(losses[name], loss, [given.logits])


def test_the_toys_own_settings_have_no_entropy_of_the_source() -> None:
    case = example(0)
    method = Ingredients(BICL, DIM).double()
    method.begin(case.start)
    assert "source_entropy" not in method(case.step).losses
