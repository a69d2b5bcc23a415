"""SPCL: its loss and its prototypes, restated in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE
from tests.reference.given_outputs import (
    CLASSES,
    DIM,
    EACH,
    assert_same,
    example,
    image_means,
    pixels,
)


def right(labels: Tensor, logits: Tensor) -> Tensor:
    return torch.where(logits.argmax(dim=1) == labels, labels, IGNORE)


def moved(rows: Tensor, features: Tensor, labels: Tensor, *, shrink: bool) -> Tensor:
    """The prototypes after a batch; of absent classes as the rule has it."""
    result = rows.clone()
    for c in range(CLASSES):
        member = F.normalize(pixels(features))[labels.flatten() == c]
        if len(member) or shrink:
            mean = member.mean(dim=0) if len(member) else torch.zeros(DIM).double()
            result[c] = 0.1 * rows[c] + 0.9 * mean
    return result


def restated(features: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    # A label whose class the source has not shown has no prototype, and says nothing.
    known = rows.any(dim=1)
    labels = torch.where(known[labels.clamp_max(CLASSES - 1)], labels, IGNORE)
    logits = (F.normalize(pixels(features)) @ rows.t() / 100).masked_fill(~known, -torch.inf)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)


def test_the_loss_is_the_released_one() -> None:
    case = example(1)
    method = case.begun("spcl")
    before, given = method.bank.prototypes.clone(), case.network.given
    # Of pixels that were rightly predicted.
    known = right(case.labels, given.logits[:EACH])
    rows = image_means(F.normalize(given.features[:EACH], dim=1), known)
    torch.testing.assert_close(before, rows.nan_to_num())
    assert 3 <= method.bank.present.sum() < CLASSES
    terms = method(case.step).terms
    same = right(case.labels[[1, 2]], given.logits[[1, 2]])
    rows = moved(before, given.features[[1, 2]].detach(), same, shrink=False)
    torch.testing.assert_close(method.bank.prototypes, rows)
    leaves = [given.features, given.logits]
    assert_same(terms["source_contrast"], restated(given.features[[1, 2]], same, rows), leaves)
    sure = method.thresholds.select(given.logits[[5, 7]].detach().softmax(dim=1)).labels
    assert_same(terms["target_contrast"], restated(given.features[[5, 7]], sure, rows), leaves)
    softened = case.mean_cross_entropy(given.logits[[1, 2]] / 1.8)
    assert_same(terms["source_cross_entropy"], softened, leaves)


def test_target_labels_are_the_surer_half_of_each_class_as_the_first_network_has_it() -> None:
    case = example(2)
    with torch.no_grad():
        case.network.given.logits.mul_(3)
    method = case.begun("spcl")
    whole = case.network.given.logits[EACH:].detach().clone()
    sure, predicted = whole.softmax(dim=1).max(dim=1)
    labels = method.thresholds.select(whole.softmax(dim=1)).labels
    assert torch.equal(labels[labels != IGNORE], predicted[labels != IGNORE])
    assert (labels[sure > 0.901] != IGNORE).all()
    lost = 0
    for c in predicted.unique():
        chosen = labels[predicted == c] != IGNORE
        assert chosen.sum() >= len(chosen) / 2
        lost += int((~chosen).sum())
    assert lost > 10
    # The network has moved on; what it said first still counts.
    with torch.no_grad():
        case.network.given.logits.mul_(-1)
    assert torch.equal(method(case.step).labels, labels[[1, 3]])


def test_absent_classes_shrink_where_asked() -> None:
    for shrink in (False, True):
        case = example(3)
        method = case.begun("spcl", absent_shrink=shrink)
        case.step.source_labels[case.step.source_labels == 5] = IGNORE
        before = method.bank.prototypes.clone()
        method(case.step)
        assert before[5].any()
        expected = 0.1 * before[5] if shrink else before[5]
        torch.testing.assert_close(method.bank.prototypes[5], expected)
        # Released, a class that was never seen stays in the sum, at a product of 0.
        assert bool(method.bank.present.all()) is shrink
