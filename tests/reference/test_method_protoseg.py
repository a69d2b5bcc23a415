"""ProtoSeg: its head, its losses and its prototypes, restated in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE
from tests.reference.given_outputs import CLASSES, assert_same, example, pixels
from tests.test_subclasses import expected

M = 10


def assignment(maps: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """By the published plan; where it is a tie, as for the only pixel of a class, the first."""
    nearest, gap = expected(
        pixels(maps).detach(), labels.flatten(), rows.unflatten(0, (CLASSES, M)), 0.05, 3
    )
    first = torch.where(nearest == IGNORE, IGNORE, nearest // M * M)
    return torch.where(gap > 1e-9, nearest, first)


def test_losses_and_prototypes_are_the_published_ones() -> None:
    case = example(0)
    method = case.begun("protoseg")
    bank, norm = method.head.bank, method.head.norm
    rows, maps = bank.prototypes.clone(), case.network.given.features[[1, 2]]
    labels = case.labels[[1, 2]]
    terms = method(case.step).terms
    cosines = F.normalize(pixels(maps)) @ F.normalize(rows).t()
    nearest = assignment(maps, labels, rows)
    valid = nearest != IGNORE
    assert len(nearest[valid].unique()) > 10
    leaves = [case.network.given.features, norm.weight, norm.bias]
    best = cosines.unflatten(1, (CLASSES, M)).amax(dim=2)
    logits = (best - best.mean(dim=1, keepdim=True)) / (
        best.var(dim=1, keepdim=True, unbiased=False) + 1e-5
    ).sqrt() * norm.weight + norm.bias
    logits = logits.unflatten(0, labels.shape).movedim(-1, 1)
    assert_same(terms["source_cross_entropy"], case.mean_cross_entropy(logits), leaves)
    contrast = 0.01 * F.cross_entropy(cosines, nearest, ignore_index=IGNORE)
    assert_same(terms["prototype_contrast"], contrast, leaves)
    own = cosines[valid].gather(1, nearest[valid][:, None])
    assert_same(terms["prototype_pull"], 0.001 * ((1 - own) ** 2).mean(), leaves)

    right = logits.argmax(dim=1).flatten() == labels.flatten()
    assert (~right & valid).any()
    directions, moved = F.normalize(pixels(maps)).detach(), 0
    for row in range(CLASSES * M):
        members = directions[(nearest == row) & right]
        wanted = rows[row]
        if len(members):
            mean = F.normalize(members.sum(dim=0), dim=0)
            wanted = F.normalize(0.99 * wanted + 0.01 * mean, dim=0)
            moved += 1
        torch.testing.assert_close(bank.prototypes[row], wanted)
    assert moved > 5


def test_prototypes_start_at_the_source_or_at_a_direction_of_their_own() -> None:
    case = example(2)
    bank = case.begun("protoseg").head.bank
    rows = bank.prototypes
    assert bank.present.all() and len(rows.unique(dim=0)) == CLASSES * M
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(CLASSES * M).double())
    assert torch.equal(rows, example(2).begun("protoseg").head.bank.prototypes)
    right = case.network.given.logits[:4].argmax(dim=1) == case.labels
    directions = F.normalize(pixels(case.network.given.features[:4])).detach()
    # The mean of a class's own pixels lies nearer to them than a random direction.
    for c in (0, 5, 10, 15):
        own = directions[right.flatten() & (case.labels.flatten() == c)]
        assert (own @ rows[c * M : (c + 1) * M].t()).amax(dim=1).mean() > 0.6
