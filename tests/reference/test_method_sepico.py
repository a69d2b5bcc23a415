"""SePiCo says what its release computes: estimator, three contrasts, regulariser, and when."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.data.arrays import ArrayDomain
from reference.data.classes import NUM_CLASSES
from reference.data.transforms import batch
from reference.methods.projector import Projector
from reference.methods.sepico import SePiCo
from reference.networks.toy import SegmentationNetwork, build_network
from reference.training.method import Start, Step
from tests.reference.test_stages import blocks

TAU = 100.0
KINDS = ("proto", "dist", "bank")
SOURCE = blocks(6)
TARGET = ArrayDomain(blocks(5, shade=0.6, seed=1).images, None, ("",) * 5)


def step_of(network: SegmentationNetwork, index: int, steps: int = 4) -> Step:
    source, target = batch(SOURCE, 0, index, 2), batch(TARGET, 0, index, 2, stream=1)
    return Step(
        network=network, source=source, target=target, index=index, steps=steps, round_index=0,
        starts_round=False, seed=0, full_resolution=False, target_images=TARGET.images,
    )  # fmt: skip


def begun(kind: str, *, uniform: bool = False) -> tuple[SePiCo, SegmentationNetwork]:
    network = build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))
    method = SePiCo(network.feature_dim, kind, uniform=uniform)
    method.begin(Start(network, SOURCE, TARGET.images, 0))
    return method, network


def majority(labels: Tensor) -> Tensor:
    """The class with at least 0.75 of a cell of 4x4 pixels, by pooling of one-hot labels."""
    hot = F.one_hot(torch.where(labels == 255, NUM_CLASSES, labels), NUM_CLASSES + 1)
    share, found = F.avg_pool2d(hot.movedim(-1, 1).double(), 4).max(dim=1)
    return torch.where((share >= 0.75) & (found < NUM_CLASSES), found, 255)


def test_the_bank_holds_mean_and_variance_of_everything_seen() -> None:
    method, network = begun("dist")
    rows, labels, means = [], [], []
    for index in range(3):
        step = step_of(network, index)
        method(step)
        with torch.no_grad():
            unit = method.projector(network(step.source.images).features).double()
        y = majority(step.image_labels).flatten()
        rows.append(unit.movedim(1, -1).flatten(0, 2))
        labels.append(y)
        means.append({c: rows[-1][y == c].mean(dim=0) for c in y.unique().tolist() if c != 255})
    every, y = torch.cat(rows), torch.cat(labels)
    seen = [c for c in y.unique().tolist() if c != 255]
    assert seen == [0, 10, 13]
    assert method.bank.present.nonzero().flatten().tolist() == seen
    assert method.bank.variance is not None
    keys, classes, _ = method.queue.read()
    for c in seen:
        own = every[y == c]
        close = {"rtol": 1e-4, "atol": 1e-6}
        torch.testing.assert_close(method.bank.prototypes[c].double(), own.mean(dim=0), **close)
        spread = own.var(dim=0, unbiased=False)
        torch.testing.assert_close(method.bank.variance[c].double(), spread, **close)
        queued = torch.stack([found[c] for found in means if c in found])
        torch.testing.assert_close(keys[classes == c].double(), queued, **close)


def filled(kind: str, seed: int = 0) -> tuple[SePiCo, Tensor, Tensor, Tensor]:
    """A method whose bank has seen every class thrice; pixels, labels, and the queue (C, 3, D)."""
    random = torch.Generator().manual_seed(seed)
    method = SePiCo(8, kind)
    queue = []
    every = torch.arange(NUM_CLASSES).repeat(4)
    for _ in range(3):
        # Longer than one: otherwise a temperature of 100 leaves nothing to tell apart.
        keys = torch.randn(len(every), 8, generator=random)
        means = method.bank.update(keys, every)
        method.queue.push(50 * means.mean, torch.arange(NUM_CLASSES))
        queue.append(50 * means.mean.double())
    with torch.no_grad():
        method.bank.prototypes *= 50
        if method.bank.variance is not None:
            method.bank.variance *= 2500
    f = F.normalize(torch.randn(2, 8, 3, 5, generator=random, dtype=torch.float64), dim=1)
    y = torch.randint(NUM_CLASSES, (2, 3, 5), generator=random)
    y[0, 0, :2] = 255
    return method, f.requires_grad_(), y, torch.stack(queue, dim=1)


def released(kind: str, method: SePiCo, f: Tensor, y: Tensor, queue: Tensor) -> Tensor:
    """The release's loss, row by row; covariance and products are divided where it does so."""
    rows, labels = f.movedim(1, -1)[y != 255], y[y != 255]
    mean = method.bank.prototypes.double()
    if kind == "proto":
        return F.cross_entropy(rows @ mean.t() / TAU, labels)
    if kind == "dist":
        assert method.bank.variance is not None
        covariance = method.bank.variance.double() / TAU
        logits = (rows @ mean.t() + 0.5 * rows.square() @ covariance.t()) / TAU
        bonus = 0.5 * (rows.square() * covariance[labels]).sum(dim=1) / TAU
        return (F.cross_entropy(logits, labels, reduction="none") + bonus).mean()
    losses = []
    for row, own in zip(rows, labels.tolist(), strict=True):
        products = queue @ row / TAU
        rivals = sum(products[c].mean().exp() for c in range(NUM_CLASSES) if c != own)
        positive = products[own].exp()
        losses.append(-(positive / (positive + rivals)).log().mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_the_contrast_is_the_released_one(kind: str) -> None:
    method, f, y, queue = filled(kind)
    expected = released(kind, method, f, y, queue)
    found = method.terms("source", f, y)["source_contrast"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    (ours,), (theirs,) = (torch.autograd.grad(loss, f) for loss in (found, expected))
    # Features are of unit length; under "dist" theirs has a part along them, which the library's
    # normalisation takes away.
    if kind == "dist":
        along = F.normalize(f.detach(), dim=1)
        theirs = theirs - along * (theirs * along).sum(dim=1, keepdim=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    assert float(theirs.abs().max()) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_the_regulariser_is_the_released_one_or_its_negative(kind: str) -> None:
    method, f, y, _ = filled(kind)
    mean = f.movedim(1, -1)[y != 255].mean(dim=0)
    products = method.bank.prototypes.double() @ mean / TAU
    expected = products.log_softmax(dim=0).sum() / (NUM_CLASSES * math.log(NUM_CLASSES))
    found = method.terms("target", f, y)["target_spread"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    (ours,), (theirs,) = (torch.autograd.grad(loss, f) for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    method.uniform = True
    assert torch.equal(method.terms("target", f, y)["target_spread"], -found)


def test_it_starts_after_the_warm_up_but_fills_its_bank_before() -> None:
    method, network = begun("proto")
    added = {"source_contrast", "source_spread", "target_contrast", "target_spread"}
    assert not added & set(method(step_of(network, 2, steps=40)).losses)
    assert method.bank.present.any()
    assert added < set(method(step_of(network, 3, steps=40)).losses)


def test_the_projector_is_of_its_seed_and_learns_and_its_teacher_does_not() -> None:
    before = torch.get_rng_state()
    features = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    first, again, other = (Projector(8, "cnrcnr", seed)(features) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    assert bool((first >= 0).all())
    torch.testing.assert_close(first.norm(dim=1), torch.ones(2, 3, 5))
    method, network = begun("proto")
    assert {id(p) for p in method.trained()} == {id(p) for p in method.projector.parameters()}
    torch.stack(list(method(step_of(network, 1)).losses.values())).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.projector.parameters())
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter += 1
    old = [p.clone() for p in method.taught.parameters()]
    method(step_of(network, 2))
    for was, now, student in zip(
        old, method.taught.parameters(), method.projector.parameters(), strict=True
    ):
        # The second of its steps: a plain average of both.
        torch.testing.assert_close(now, 0.5 * was + 0.5 * student)
