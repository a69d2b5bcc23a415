"""ProCA: its loss and its prototypes, restated in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.lovasz import lovasz_softmax
from reference.methods.proca import ProCA, sure_labels
from tests.reference.given_outputs import DIM, EACH, Example, assert_same, example, pixels


def begun(case: Example) -> ProCA:
    method = ProCA(DIM).double()
    method.begin(case.start)
    return method


def means(maps: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Class means over all pixels of several batches; zero rows of classes that none shows."""
    rows = torch.cat([pixels(each.detach()) for each in maps])
    flat = torch.cat([each.flatten() for each in labels])
    return torch.stack([rows[flat == c].mean(dim=0).nan_to_num() for c in range(NUM_CLASSES)])


def restated(maps: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    logits = F.normalize(pixels(maps)) @ F.normalize(rows).t() / 50
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)


def test_the_loss_is_the_published_one() -> None:
    case = example(0)
    with torch.no_grad():
        case.network.given.logits.sub_(1)
    method = begun(case)
    done = method(case.step)
    given, labels = case.network.given, case.labels[[1, 2]]
    new = given.logits[[5, 7]]
    kept = torch.where(new.amax(dim=1) >= 0.9, new.argmax(dim=1), IGNORE)
    assert 0 < (kept == IGNORE).sum() < kept.numel()
    assert torch.equal(sure_labels(new), kept)
    levels = {"features": given.features, "logits": given.logits}
    for level, maps in levels.items():
        # The mean over everything seen: the whole source once, then the step's images of both.
        rows = means([maps[:EACH], maps[[5, 7]], maps[[1, 2]]], [case.labels, kept, labels])
        bank = getattr(method, level)
        known = rows.any(dim=1)
        assert torch.equal(bank.present, known) and not known.all()
        torch.testing.assert_close(bank.prototypes, rows)
        leaves = [given.features, given.logits]
        source = restated(maps[[1, 2]], labels, rows)
        assert_same(done.losses[f"source_{level}"], source, leaves)
        target = restated(maps[[5, 7]], kept, rows)
        assert_same(done.losses[f"target_{level}"], target, leaves)


def test_a_label_needs_a_large_logit_not_a_large_probability() -> None:
    logits = torch.tensor([[0.9, 0.89, 30.0], [0.8, -50.0, 29.9]])[None, :, None]
    assert sure_labels(logits).tolist() == [[[0, IGNORE, 0]]]


def test_the_count_never_forgets() -> None:
    case = example(1)
    method = begun(case)
    first = method.features.count.clone()
    method(case.step)
    method(case.step)
    kept = sure_labels(case.network.given.logits[[5, 7]])
    seen = torch.cat([kept.flatten(), case.labels[[1, 2]].flatten()])
    more = torch.stack([(seen == c).sum() for c in range(NUM_CLASSES)])
    assert torch.equal(method.features.count, first + 2 * more)


def lovasz_by_loops(logits: Tensor, labels: Tensor) -> Tensor:
    """Pixel by pixel: one minus the IoU as the worst pixels turn wrong, one after another."""
    shares = pixels(logits.softmax(dim=1))
    losses = []
    valid = [i for i, label in enumerate(labels.flatten().tolist()) if label != IGNORE]
    truth = labels.flatten().tolist()
    for c in sorted({truth[i] for i in valid}):
        errors = {i: shares[i, c] if truth[i] != c else 1 - shares[i, c] for i in valid}
        worst = sorted(valid, key=lambda i: -float(errors[i].detach()))
        own, before, loss = sum(truth[i] == c for i in valid), 0.0, logits.sum() * 0
        for k in range(1, len(worst) + 1):
            missed = sum(truth[i] == c for i in worst[:k])
            after = 1 - (own - missed) / (own + k - missed)
            loss, before = loss + errors[worst[k - 1]] * (after - before), after
        losses.append(loss)
    return torch.stack(losses).mean()


def test_lovasz_is_the_published_one_in_value_and_gradient() -> None:
    case = example(3)
    method = begun(case)
    given, labels = case.network.given, case.labels[[1, 2]]
    assert (labels == IGNORE).any()
    found = method(case.step).losses["source_lovasz"]
    assert_same(found, 0.75 * lovasz_by_loops(given.logits[[1, 2]], labels), [given.logits])


def test_without_a_label_lovasz_is_no_loss() -> None:
    logits = torch.zeros(1, NUM_CLASSES, 2, 2, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((1, 2, 2), IGNORE))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and not gradient.any()
