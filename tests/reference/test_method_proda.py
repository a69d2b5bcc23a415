"""ProDA: its losses and its prototypes, restated in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.classes import IGNORE, NUM_CLASSES
from reference.methods.proda import ProDA
from reference.networks.output import Output
from tests.reference.given_outputs import DIM, EACH, Example, Given, assert_same, example, pixels


def begun(case: Example) -> ProDA:
    method = ProDA(DIM).double()
    method.begin(case.start)
    return method


def centroids(features: Tensor, logits: Tensor) -> Tensor:
    """Per class the mean over images of an image's mean; NaN for a class that none shows."""
    labels = logits.argmax(dim=1)
    rows = []
    for c in range(NUM_CLASSES):
        shown = [
            image[:, label == c].mean(dim=1)
            for image, label in zip(features.detach(), labels, strict=True)
            if (label == c).any()
        ]
        rows.append(torch.stack(shown).mean(dim=0) if shown else torch.full((DIM,), torch.nan))
    return torch.stack([row.double() for row in rows])


def distances(maps: Tensor, rows: Tensor) -> Tensor:
    """To every prototype, (N, C); infinite where there is none."""
    apart = (pixels(maps)[:, None] - rows).norm(dim=2)
    return torch.where(rows[:, 0].isnan(), torch.inf, apart)


def teach(case: Example, method: ProDA) -> tuple[Tensor, Tensor]:
    """Give the teacher answers of its own."""
    random = torch.Generator().manual_seed(99)
    given = case.network.given
    features = torch.randn(given.features.shape, generator=random, dtype=torch.float64)
    logits = torch.randn(given.logits.shape, generator=random, dtype=torch.float64)
    teacher = method.teacher.module
    assert isinstance(teacher, Given)
    teacher.given = Output(logits, features)
    return features, logits


def test_prototypes_start_from_target_images_of_equal_weight() -> None:
    case = example(0)
    method = begun(case)
    given = case.network.given
    rows = centroids(given.features[EACH:], given.logits[EACH:])
    known = ~rows[:, 0].isnan()
    assert torch.equal(method.bank.present, known)
    torch.testing.assert_close(method.bank.prototypes[known], rows[known])


def test_the_losses_are_the_released_ones() -> None:
    case = example(1)
    method = begun(case)
    given, network = case.network.given, case.network
    features, _ = teach(case, method)
    rows = centroids(given.features[EACH:], given.logits[EACH:])
    done = method(case.step)
    weak = distances(features[[5, 7]], rows)
    weights = F.softmax(-(weak - weak.amin(dim=1, keepdim=True)), dim=1)
    # Saved before the first step, by the network itself.
    saved = pixels(given.logits[[5, 7]].softmax(dim=1))
    labels = (weights * saved).argmax(dim=1)
    assert (labels != saved.argmax(dim=1)).any()
    assert done.labels is not None
    assert torch.equal(done.labels.flatten(), labels)

    leaves = [given.features, given.logits, network.changed]
    log_share = F.log_softmax(pixels(given.logits[[5, 7]]), dim=1)
    one_hot = F.one_hot(labels, NUM_CLASSES).double().clamp(min=1e-4)
    reverse = -(log_share.exp() * one_hot.log()).sum(dim=1).mean()
    symmetric = 0.1 * F.nll_loss(log_share, labels) + reverse
    assert_same(done.losses["symmetric_cross_entropy"], symmetric, leaves)
    assert_same(done.losses["confidence"], 0.1 * -log_share.mean(), leaves)
    known = ~rows[:, 0].isnan()
    strong = F.log_softmax(-distances(network.changed, rows)[:, known], dim=1)
    taught = F.softmax(-weak[:, known], dim=1)
    # The released mean divides by all classes, also by those that were never predicted.
    consistency = 10 * F.kl_div(strong, taught, reduction="sum") / (len(taught) * NUM_CLASSES)
    assert_same(done.losses["consistency"], consistency, leaves)
    plain = F.cross_entropy(given.logits[[1, 2]], case.labels[[1, 2]], ignore_index=IGNORE)
    assert_same(done.losses["source_cross_entropy"], plain, leaves)


def test_prototypes_follow_the_teacher_after_the_step() -> None:
    case = example(2)
    method = begun(case)
    features, logits = teach(case, method)
    before, known = method.bank.prototypes.clone(), method.bank.present.clone()
    method(case.step)
    assert torch.equal(method.bank.prototypes, before)
    method.after(case.network)
    batch = centroids(features[[5, 7]], logits[[5, 7]])
    seen = ~batch[:, 0].isnan()
    both, first = known & seen, seen & ~known
    torch.testing.assert_close(
        method.bank.prototypes[both], 0.99 * before[both] + 0.01 * batch[both]
    )
    torch.testing.assert_close(method.bank.prototypes[first], batch[first])
    assert torch.equal(method.bank.prototypes[~seen], before[~seen])
