"""SPCL: its loss and its prototypes, restated in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.passes import whole_output
from reference.methods.spcl import SPCL
from tests.reference.given_outputs import DIM, EACH, Example, assert_same, example, pixels


def begun(case: Example, *, absent_shrink: bool = False) -> SPCL:
    method = SPCL(DIM, absent_shrink=absent_shrink).double()
    method.begin(case.start)
    return method


def right(labels: Tensor, logits: Tensor) -> Tensor:
    return torch.where(logits.argmax(dim=1) == labels, labels, IGNORE)


def unit(maps: Tensor) -> Tensor:
    return maps / maps.norm(dim=1, keepdim=True)


def first_prototypes(case: Example) -> Tensor:
    """Per class the mean over images of the mean over an image's rightly predicted pixels."""
    rows = torch.zeros(NUM_CLASSES, DIM).double()
    given = case.network.given
    for c in range(NUM_CLASSES):
        means = [
            unit(given.features[b : b + 1])[0][:, right(case.labels, given.logits[:EACH])[b] == c]
            .mean(dim=1)
            .detach()
            for b in range(EACH)
        ]
        seen = [mean for mean in means if mean.isfinite().all()]
        if seen:
            rows[c] = torch.stack(seen).mean(dim=0)
    return rows


def moved(rows: Tensor, features: Tensor, labels: Tensor, *, shrink: bool) -> Tensor:
    """The prototypes after a batch that all of it but the absent classes' rule agrees on."""
    result = rows.clone()
    for c in range(NUM_CLASSES):
        member = pixels(unit(features))[labels.flatten() == c]
        if len(member) or shrink:
            mean = member.mean(dim=0) if len(member) else torch.zeros(DIM).double()
            result[c] = 0.1 * rows[c] + 0.9 * mean
    return result


def restated(features: Tensor, labels: Tensor, rows: Tensor, known: Tensor) -> Tensor:
    # A label whose class the source has not shown has no prototype, and says nothing.
    labels = torch.where(known[labels.clamp_max(NUM_CLASSES - 1)], labels, IGNORE)
    logits = (pixels(unit(features)) @ rows.t() / 100).masked_fill(~known, -torch.inf)
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)


def test_prototypes_start_from_images_of_equal_weight() -> None:
    case = example(0)
    method = begun(case)
    expected = first_prototypes(case)
    assert 3 <= method.bank.present.sum() < NUM_CLASSES
    torch.testing.assert_close(method.bank.prototypes, expected)


def test_the_loss_is_the_released_one() -> None:
    case = example(1)
    method = begun(case)
    before = method.bank.prototypes.clone()
    done = method(case.step)
    given, labels = case.network.given, case.labels[[1, 2]]
    same = right(labels, given.logits[[1, 2]])
    rows = moved(before, given.features[[1, 2]].detach(), same, shrink=False)
    torch.testing.assert_close(method.bank.prototypes, rows)
    known = rows.any(dim=1)
    leaves = [given.features, given.logits]
    source = restated(given.features[[1, 2]], same, rows, known)
    assert_same(done.losses["source_contrast"], source, leaves)
    target = restated(given.features[[5, 7]], method.labels[[1, 3]], rows, known)
    assert_same(done.losses["target_contrast"], target, leaves)
    softened = F.cross_entropy(given.logits[[1, 2]] / 1.8, labels, ignore_index=IGNORE)
    assert_same(done.losses["source_cross_entropy"], softened, leaves)


def test_target_labels_are_the_surer_half_of_each_class() -> None:
    case = example(2)
    with torch.no_grad():
        case.network.given.logits.mul_(3)
    method = begun(case)
    sure, predicted = (
        whole_output(case.network, case.start.target_images).logits.softmax(dim=1).max(dim=1)
    )
    assert torch.equal(method.labels[method.labels != IGNORE], predicted[method.labels != IGNORE])
    assert (method.labels[sure > 0.901] != IGNORE).all()
    lost = 0
    for c in predicted.unique():
        kept = method.labels[predicted == c] != IGNORE
        assert kept.sum() >= len(kept) / 2
        lost += int((~kept).sum())
    assert lost > 10


def test_absent_classes_shrink_where_asked() -> None:
    for shrink in (False, True):
        case = example(3)
        method = begun(case, absent_shrink=shrink)
        case.step.image_labels[case.step.image_labels == 5] = IGNORE
        before = method.bank.prototypes.clone()
        method(case.step)
        assert before[5].any()
        expected = 0.1 * before[5] if shrink else before[5]
        torch.testing.assert_close(method.bank.prototypes[5], expected)
        given, labels = case.network.given, case.step.source_labels
        same = right(labels, given.logits[[1, 2]])
        rows = moved(before, given.features[[1, 2]].detach(), same, shrink=shrink)
        torch.testing.assert_close(method.bank.prototypes, rows)
        # Released, a class that was never seen stays in the sum, at a product of 0.
        assert bool(method.bank.present.all()) is shrink
