"""ProDA: its losses and its prototypes, restated in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.networks.output import Output
from reference.run.ranks import Ranks
from tests.reference.given_outputs import CLASSES, EACH, assert_same, example, image_means, pixels


def distances(maps: Tensor, rows: Tensor) -> Tensor:
    """To every prototype, (N, C); infinite where there is none."""
    apart = (pixels(maps)[:, None] - rows).norm(dim=2)
    return torch.where(rows[:, 0].isnan(), torch.inf, apart)


def test_losses_and_prototypes_are_the_released_ones() -> None:
    case = example(1)
    method, network, given = case.begun("proda"), case.network, case.network.given
    rows = image_means(given.features[EACH:], given.logits[EACH:].argmax(dim=1))
    known = ~rows[:, 0].isnan()
    assert torch.equal(method.bank.present, known)
    torch.testing.assert_close(method.bank.prototypes[known], rows[known])
    random = torch.Generator().manual_seed(99)
    taught = Output(*(torch.randn(m.shape, generator=random, dtype=m.dtype) for m in given))
    method.teacher.module.given = taught
    done = method(case.step)

    weak = distances(taught.features[[5, 7]], rows)
    weights = F.softmax(-(weak - weak.amin(dim=1, keepdim=True)), dim=1)
    # By the network before the first step.
    first = pixels(given.logits[[5, 7]].softmax(dim=1))
    labels = (weights * first).argmax(dim=1)
    assert (labels != first.argmax(dim=1)).any()
    assert torch.equal(done.labels.flatten(), labels)
    leaves = [given.features, given.logits, network.changed]
    log_share = F.log_softmax(pixels(given.logits[[5, 7]]), dim=1)
    one_hot = F.one_hot(labels, CLASSES).double().clamp(min=1e-4)
    reverse = -(log_share.exp() * one_hot.log()).sum(dim=1).mean()
    symmetric = 0.1 * F.nll_loss(log_share, labels) + reverse
    assert_same(done.terms["symmetric_cross_entropy"], symmetric, leaves)
    assert_same(done.terms["confidence"], 0.1 * -log_share.mean(), leaves)
    strong = F.log_softmax(-distances(network.changed, rows)[:, known], dim=1)
    near = F.softmax(-weak[:, known], dim=1)
    # The released mean divides by all classes, also by those that were never predicted.
    consistency = 10 * F.kl_div(strong, near, reduction="sum") / (len(near) * CLASSES)
    assert_same(done.terms["consistency"], consistency, leaves)
    plain = case.mean_cross_entropy(given.logits[[1, 2]])
    assert_same(done.terms["source_cross_entropy"], plain, leaves)

    before = method.bank.prototypes.clone()
    torch.testing.assert_close(before[known], rows[known])
    method.after(network, Ranks())
    batch = image_means(taught.features[[5, 7]], taught.logits[[5, 7]].argmax(dim=1))
    seen = ~batch[:, 0].isnan()
    both, new = known & seen, seen & ~known
    moved = 0.99 * before[both] + 0.01 * batch[both]
    torch.testing.assert_close(method.bank.prototypes[both], moved)
    torch.testing.assert_close(method.bank.prototypes[new], batch[new])
    assert torch.equal(method.bank.prototypes[~seen], before[~seen])
