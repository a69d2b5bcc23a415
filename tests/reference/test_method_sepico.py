"""SePiCo says what its release computes: estimator, three contrasts, regulariser, and when."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.methods.heads import Projector
from reference.methods.sepico import SePiCo
from tests.reference.given_outputs import assert_same
from tests.reference.method_steps import given, step_of, toy
from tests.test_distribution_contrast import released as estimated

TAU = 100.0
KINDS = ("proto", "dist", "bank")
CLASSES = 19


def majority(labels: Tensor, classes: int) -> Tensor:
    """The class with at least 0.75 of a cell of 4x4 pixels, by pooling of one-hot labels."""
    hot = F.one_hot(torch.where(labels == 255, classes, labels), classes + 1)
    share, most = F.avg_pool2d(hot.movedim(-1, 1).double(), 4).max(dim=1)
    return torch.where((share >= 0.75) & (most < classes), most, 255)


def test_the_bank_holds_mean_and_variance_of_everything_seen() -> None:
    network = toy()
    method = SePiCo(given(network), "dist")
    rows, labels, means = [], [], []
    for index in range(3):
        step = step_of(network, index, steps=100)
        method(step)
        with torch.no_grad():
            unit = method.projector(network(step.source.images).features).double()
        rows.append(unit.movedim(1, -1).flatten(0, 2))
        labels.append(majority(step.source_labels, 3).flatten())
        shown = labels[-1].unique().tolist()
        means.append({c: rows[-1][labels[-1] == c].mean(dim=0) for c in shown if c != 255})
    every, y = torch.cat(rows), torch.cat(labels)
    assert (y == 255).any() and method.bank.present.all()
    keys, classes, _ = method.queue.read()
    for c in range(3):
        own = every[y == c]
        queued = torch.stack([each[c] for each in means if c in each])
        held = method.bank.prototypes[c], method.bank.variance[c], keys[classes == c]
        wanted = own.mean(dim=0), own.var(dim=0, unbiased=False), queued
        torch.testing.assert_close([x.double() for x in held], [*wanted], rtol=1e-4, atol=1e-6)


def filled(kind: str) -> tuple[SePiCo, Tensor, Tensor, Tensor]:
    """A method whose bank has seen every class thrice; pixels, labels, and the queue (C, 3, D)."""
    random = torch.Generator().manual_seed(0)
    method = SePiCo(given(toy(CLASSES)), kind)
    queue, every = [], torch.arange(CLASSES).repeat(4)
    for _ in range(3):
        # Longer than one: otherwise a temperature of 100 leaves nothing to tell apart.
        keys = torch.randn(len(every), 8, generator=random)
        means = method.bank.update(keys, every)
        method.queue.push(50 * means.mean, torch.arange(CLASSES))
        queue.append(50 * means.mean.double())
    with torch.no_grad():
        method.bank.prototypes *= 50
        if method.bank.variance is not None:
            method.bank.variance *= 2500
    f = F.normalize(torch.randn(2, 8, 3, 5, generator=random, dtype=torch.float64), dim=1)
    y = torch.randint(CLASSES, (2, 3, 5), generator=random)
    y[0, 0, :2] = 255
    return method, f.requires_grad_(), y, torch.stack(queue, dim=1)


def released(kind: str, method: SePiCo, f: Tensor, y: Tensor, queue: Tensor) -> Tensor:
    """The release's loss, row by row."""
    rows, labels = f.movedim(1, -1)[y != 255], y[y != 255]
    mean = method.bank.prototypes.double()
    if kind == "proto":
        return F.cross_entropy(rows @ mean.t() / TAU, labels)
    if kind == "dist":
        return estimated(rows, labels, mean, method.bank.variance.double(), TAU)
    losses = []
    for row, own in zip(rows, labels.tolist(), strict=True):
        products = queue @ row / TAU
        rivals = sum(products[c].mean().exp() for c in range(CLASSES) if c != own)
        positive = products[own].exp()
        losses.append(-(positive / (positive + rivals)).log().mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_contrast_and_regulariser_are_the_released_ones(kind: str) -> None:
    method, f, y, queue = filled(kind)
    mean = f.movedim(1, -1)[y != 255].mean(dim=0)
    products = method.bank.prototypes.double() @ mean / TAU
    spread = products.log_softmax(dim=0).sum() / (CLASSES * math.log(CLASSES))
    terms = method.terms("source", f, y)
    pairs = {"contrast": released(kind, method, f, y, queue), "spread": spread}
    for name, expected in pairs.items():
        assert_same(terms[f"source_{name}"], expected, [f], 1e-5, 1e-9)
    method.uniform = True
    assert torch.equal(method.terms("source", f, y)["source_spread"], -terms["source_spread"])


def test_it_starts_after_the_warm_up_and_reads_both_domains_labels_by_majority() -> None:
    network = toy()
    method = SePiCo(given(network), "proto")
    added = {"source_contrast", "source_spread", "target_contrast", "target_spread"}
    assert not added & {*method(step_of(network, 2, steps=40)).terms}
    assert method.bank.present.any()
    read: list[tuple[str, Tensor]] = []

    def spy(domain: str, f: Tensor, y: Tensor) -> dict[str, Tensor]:
        read.append((domain, y))
        return {f"{domain}_{name}": f.sum() for name in ("contrast", "spread")}

    method.terms = spy
    step = step_of(network, 3, steps=40)
    done = method(step)
    assert added < {*done.terms} and [domain for domain, _ in read] == ["source", "target"]
    for (_, y), labels in zip(read, (step.source_labels, done.labels), strict=True):
        assert torch.equal(y, majority(labels, 3))


def test_the_projector_is_of_its_seed_and_learns_and_its_teacher_follows_once_a_step() -> None:
    before = torch.get_rng_state()
    features = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    first, again, other = (Projector(8, "cnrcnr", seed)(features) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(first.norm(dim=1), torch.ones(2, 3, 5))
    network = toy()
    method = SePiCo(given(network), "proto")
    assert {id(p) for p in method.trained()} == {id(p) for p in method.projector.parameters()}
    torch.stack(list(method(step_of(network, 1)).terms.values())).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.projector.parameters())
    for parameter in method.projector.parameters():
        parameter.data += 1
    old = [p.clone() for p in method.taught.parameters()]
    for part in (0, 1):
        method(step_of(network, 2, part=part))
    pairs = zip(old, method.taught.parameters(), method.projector.parameters(), strict=True)
    for was, now, student in pairs:
        # The second of its steps: a plain average of both.
        torch.testing.assert_close(now, 0.5 * was + 0.5 * student)
