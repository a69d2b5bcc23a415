"""ProCA: its loss and its prototypes, restated in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE
from reference.methods.proca import lovasz_softmax, sure_labels
from tests.reference.given_outputs import CLASSES, EACH, assert_same, example, pixels


def means(maps: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Class means over all pixels of several batches; zero rows of classes that none shows."""
    rows = torch.cat([pixels(each.detach()) for each in maps])
    flat = torch.cat([each.flatten() for each in labels])
    return torch.stack([rows[flat == c].mean(dim=0).nan_to_num() for c in range(CLASSES)])


def restated(maps: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    logits = F.normalize(pixels(maps)) @ F.normalize(rows).t() / 50
    return F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)


def lovasz_by_loops(logits: Tensor, labels: Tensor) -> Tensor:
    """Pixel by pixel: one minus the IoU as the worst pixels turn wrong, one after another."""
    shares, truth = pixels(logits.softmax(dim=1)), labels.flatten().tolist()
    valid = [i for i, label in enumerate(truth) if label != IGNORE]
    losses = []
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


def test_the_loss_is_the_published_one() -> None:
    case = example(0)
    with torch.no_grad():
        case.network.given.logits.sub_(1)
    method = case.begun("proca")
    terms, given, labels = method(case.step).terms, case.network.given, case.labels[[1, 2]]
    new, leaves = given.logits[[5, 7]], [given.features, given.logits]
    sure = torch.where(new.amax(dim=1) >= 0.9, new.argmax(dim=1), IGNORE)
    assert 0 < (sure == IGNORE).sum() < sure.numel()
    for level, maps in {"features": given.features, "logits": given.logits}.items():
        # The mean over everything seen: the whole source once, then the step's images of both.
        rows = means([maps[:EACH], maps[[5, 7]], maps[[1, 2]]], [case.labels, sure, labels])
        bank, known = getattr(method, level), rows.any(dim=1)
        assert torch.equal(bank.present, known) and not known.all()
        torch.testing.assert_close(bank.prototypes, rows)
        assert_same(terms[f"source_{level}"], restated(maps[[1, 2]], labels, rows), leaves)
        assert_same(terms[f"target_{level}"], restated(maps[[5, 7]], sure, rows), leaves)
    assert (labels == IGNORE).any()
    lovasz = 0.75 * lovasz_by_loops(given.logits[[1, 2]], labels)
    assert_same(terms["source_lovasz"], lovasz, [given.logits])
    plain = case.mean_cross_entropy(given.logits[[1, 2]])
    assert_same(terms["source_cross_entropy"], plain, [given.logits])


def test_a_label_needs_a_large_logit_not_a_large_probability() -> None:
    logits = torch.tensor([[0.9, 0.89, 30.0], [0.8, -50.0, 29.9]])[None, :, None]
    assert sure_labels(logits).tolist() == [[[0, IGNORE, 0]]]


def test_without_a_label_lovasz_is_no_loss() -> None:
    logits = torch.zeros(1, CLASSES, 2, 2, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((1, 2, 2), IGNORE))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and not gradient.any()
