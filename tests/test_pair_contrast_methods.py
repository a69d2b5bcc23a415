"""`pair_contrast` says what published losses say, in value and gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from protocontrast import class_prototypes, pair_contrast
from tests.strategies import label_map, normal

BACKENDS = ["eager", "naive"]


def rows_of_classes(seed: int, count: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Rows (N, 8) in float64 and labels without an ignored one."""
    rows = normal(seed, (count, 8)).requires_grad_()
    return rows, label_map(seed + 1, (count,), num_classes, "full")


def assert_same(found: Tensor, expected: Tensor, leaves: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("classes", "views"), [(10, 100), (2, 3), (1, 4)])
def test_identical_pixels(classes: int, views: int, backend: str) -> None:
    """Every positive stands against (C - 1) V equal rivals; 9.719293 for 10 x 100 at 0.1 / 0.07."""
    rows = torch.ones(classes * views, 4, dtype=torch.float64)
    labels = torch.arange(classes).repeat_interleave(views)
    loss = pair_contrast(rows, labels, rows, labels, exclude_self=True, backend=backend)
    assert float(loss) == pytest.approx(math.log1p((classes - 1) * views), rel=1e-12)
    if (classes, views) == (10, 100):
        assert f"{0.1 / 0.07 * float(loss):.6f}" == "9.719293"


def released_by_pipa(rows: Tensor, labels: Tensor) -> Tensor:
    """It divides by the temperature, and multiplies the loss by it over 0.07."""
    units = F.normalize(rows, dim=1)
    exponentials = (units @ units.t() / 0.1).exp()
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    rivals = (exponentials * ~same).sum(dim=1, keepdim=True)
    logs = (exponentials / (exponentials + rivals)).log()
    return -(0.1 / 0.07) * ((positive * logs).sum(dim=1) / positive.sum(dim=1)).mean()


@pytest.mark.parametrize("backend", BACKENDS)
def test_contrastiveseg_and_pipa(backend: str) -> None:
    rows, labels = rows_of_classes(0, 24, 4)
    loss = pair_contrast(rows, labels, rows, labels, exclude_self=True, backend=backend)
    assert_same(loss * (0.1 / 0.07), released_by_pipa(rows, labels), (rows,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_contrastiveseg_against_a_bank(backend: str) -> None:
    """One anchor per class and image, the keys of a bank that was filled by classes."""
    anchors, labels = rows_of_classes(0, 6, 3)
    bank = normal(2, (3, 5, 8))
    units, keys = F.normalize(anchors, dim=1), F.normalize(bank, dim=2)
    scores = torch.einsum("ad,ckd->ack", units, keys) / 0.07
    losses = []
    for row, own in zip(scores, labels.tolist(), strict=True):
        rivals = sum(row[c].exp().sum() for c in range(3) if c != own)
        losses.append(-(row[own] - (row[own].exp() + rivals).log()).mean())
    loss = pair_contrast(
        anchors, labels, bank.flatten(0, 1), torch.arange(3).repeat_interleave(5),
        temperature=0.07, backend=backend,
    )  # fmt: skip
    assert_same(loss, torch.stack(losses).mean(), (anchors,))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_patch_nce(denominator: str, backend: str) -> None:
    """One positive per anchor: a cross-entropy over all keys, of which every row is a class."""
    queries, keys = (normal(seed, (300, 8)).requires_grad_() for seed in (0, 1))
    own = torch.arange(300)
    scores = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).t() / 0.07
    loss = pair_contrast(
        queries, own, keys, own, temperature=0.07, denominator=denominator,
        ignore_index=-1, backend=backend,
    )  # fmt: skip
    assert_same(loss, F.cross_entropy(scores, own), (queries, keys))


@pytest.mark.parametrize("backend", BACKENDS)
def test_supcon(backend: str) -> None:
    """A log-softmax over all others, averaged over the positives."""
    rows, labels = rows_of_classes(0, 24, 4)
    units = F.normalize(rows, dim=1)
    itself = torch.eye(24, dtype=torch.bool)
    logs = (units @ units.t() / 0.1).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    positive = (labels[:, None] == labels) & ~itself
    each = -torch.where(positive, logs, 0).sum(dim=1) / positive.sum(dim=1)
    loss = pair_contrast(
        rows, labels, rows, labels, denominator="all", exclude_self=True, backend=backend
    )
    assert_same(loss, each.mean(), (rows,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bank_cl(backend: str) -> None:
    """SePiCo averages a class's products before the exponential: products with the class's mean."""
    pixels, labels = rows_of_classes(0, 12, 3)
    bank = normal(2, (3, 5, 8))
    scores = torch.einsum("nd,cmd->ncm", pixels, bank) / 100
    averaged = scores.mean(dim=2).exp()
    losses = []
    for row, mean, own in zip(scores, averaged, labels.tolist(), strict=True):
        rivals = mean.sum() - mean[own]
        losses.append(-(row[own].exp() / (row[own].exp() + rivals)).log().mean())
    rows, classes = bank.flatten(0, 1), torch.arange(3).repeat_interleave(5)
    loss = pair_contrast(
        pixels, labels, rows, classes, negatives=class_prototypes(rows, classes, 3).mean,
        negative_labels=torch.arange(3), similarity="dot", temperature=100, backend=backend,
    )  # fmt: skip
    assert_same(loss, torch.stack(losses).mean(), (pixels,))
