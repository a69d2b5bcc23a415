"""ProtoSeg: its head, its losses and its prototypes, restated in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.protoseg import ROWS, ProtoSeg, PrototypeHead
from reference.networks.toy import build_network
from reference.training.method import Start
from tests.reference.given_outputs import DIM, Example, assert_same, example, pixels
from tests.reference.test_stages import blocks
from tests.test_subclasses import expected

M = ROWS // NUM_CLASSES


def begun(case: Example) -> ProtoSeg:
    method = ProtoSeg(DIM).double()
    method.begin(case.start)
    case.network.head.double()
    return method


def assignment(maps: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """By the published plan; where it is a tie, as for the only pixel of a class, the first."""
    found, gap = expected(
        pixels(maps).detach(), labels.flatten(), rows.unflatten(0, (NUM_CLASSES, M)), 0.05, 3
    )
    return torch.where(gap > 1e-9, found, torch.where(found == IGNORE, IGNORE, found // M * M))


def test_the_losses_are_the_published_ones() -> None:
    case = example(0)
    method = begun(case)
    rows = method.bank.prototypes.clone()
    done = method(case.step)
    maps, labels = case.network.given.features, case.labels[[1, 2]]
    cosines = F.normalize(pixels(maps[[1, 2]])) @ F.normalize(rows).t()
    nearest = assignment(maps[[1, 2]], labels, rows)
    valid = nearest != IGNORE
    assert len(nearest[valid].unique()) > 10
    norm = method_head(case).norm
    leaves = [maps, norm.weight, norm.bias]
    best = cosines.unflatten(1, (NUM_CLASSES, M)).amax(dim=2)
    logits = (best - best.mean(dim=1, keepdim=True)) / (
        best.var(dim=1, keepdim=True, unbiased=False) + 1e-5
    ).sqrt() * norm.weight + norm.bias
    plain = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)
    assert_same(done.losses["source_cross_entropy"], plain, leaves)
    contrast = 0.01 * F.cross_entropy(cosines, nearest, ignore_index=IGNORE)
    assert_same(done.losses["prototype_contrast"], contrast, leaves)
    own = cosines[valid].gather(1, nearest[valid][:, None])
    assert_same(done.losses["prototype_pull"], 0.001 * ((1 - own) ** 2).mean(), leaves)


def test_prototypes_move_by_rightly_predicted_pixels_alone() -> None:
    case = example(1)
    method = begun(case)
    rows = method.bank.prototypes.clone()
    maps, labels = case.network.given.features[[1, 2]], case.labels[[1, 2]]
    predicted = case.network.head(maps).argmax(dim=1).flatten()
    nearest = assignment(maps, labels, rows)
    assert ((predicted != labels.flatten()) & (nearest != IGNORE)).any()
    method(case.step)
    directions = F.normalize(pixels(maps)).detach()
    moved = 0
    for row in range(ROWS):
        members = directions[(nearest == row) & (predicted == labels.flatten())]
        wanted = rows[row]
        if len(members):
            wanted = F.normalize(
                0.99 * wanted + 0.01 * F.normalize(members.sum(dim=0), dim=0), dim=0
            )
            moved += 1
        torch.testing.assert_close(method.bank.prototypes[row], wanted)
    assert moved > 5


def method_head(case: Example) -> PrototypeHead:
    head = case.network.head
    assert isinstance(head, PrototypeHead)
    return head


def test_prototypes_start_at_the_source_or_at_a_direction_of_their_own() -> None:
    case = example(2)
    method = begun(case)
    rows = method.bank.prototypes
    assert method.bank.present.all()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(ROWS).double())
    assert len(rows.unique(dim=0)) == ROWS
    again = begun(example(2)).bank.prototypes
    assert torch.equal(rows, again)
    right = case.network.given.logits[:4].argmax(dim=1) == case.labels
    directions = F.normalize(pixels(case.network.given.features[:4])).detach()
    # The mean of a class's own pixels lies nearer to them than a random direction.
    for c in (0, 5, 10, 15):
        own = directions[right.flatten() & (case.labels.flatten() == c)]
        assert (own @ rows[c * M : (c + 1) * M].t()).amax(dim=1).mean() > 0.6


def test_the_head_of_the_network_is_replaced_and_trains() -> None:
    network = build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))
    source = blocks(3)
    method = ProtoSeg(network.feature_dim)
    method.begin(Start(network, source, source.images, 0))
    seen = network(source.images / 255)
    assert seen.logits.shape == (3, NUM_CLASSES, 4, 8)
    torch.testing.assert_close(seen.logits.mean(dim=1), torch.zeros(3, 4, 8), atol=1e-5, rtol=0)
    names = {name for name, _ in network.named_parameters() if name.startswith("head")}
    assert names == {"head.norm.weight", "head.norm.bias"}
    # What the network already trains is not given to the optimiser twice.
    assert list(method.trained()) == []
