"""`pair_contrast`: loops over pairs, losses as they were published, and distances at the ends."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import class_prototypes, pair_contrast
from protocontrast.calls import PairRolesCall
from protocontrast.eager import pair_contrast as eager
from tests.agreement import values_and_gradients
from tests.launching import Largest
from tests.operator_calls import pairs
from tests.pair_cases import Case, cases, looped
from tests.strategies import label_map, normal

BACKENDS = ["eager", "naive"]
LOOPED = {
    "keys": Case(),
    "self": Case(exclude_self=True),
    "negatives": Case(negatives=7),
    "weights": Case(anchor_weight=torch.float32),
    "one class": Case(label_kind="one_class"),
}


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize(
    ("similarity", "temperature"), [("cosine", 0.1), ("cosine", 0.001), ("euclidean", 0.3)]
)
@pytest.mark.parametrize("name", LOOPED)
def test_seams(
    name: str,
    similarity: str,
    temperature: float,
    denominator: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tiles of a few pairs; so low a temperature needs the peak of each."""
    monkeypatch.setattr(eager, "BLOCK", 3)
    monkeypatch.setattr(eager, "TILE", 4)
    how = {"temperature": temperature, "denominator": denominator, "similarity": similarity}
    pairs(LOOPED[name]._replace(**how)).assert_agrees("eager")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("name", LOOPED)
def test_loops_over_pairs(name: str, similarity: str, denominator: str, backend: str) -> None:
    case = LOOPED[name]._replace(
        dtype=torch.float64, key_dtype=torch.float64, similarity=similarity,
        denominator=denominator, temperature=0.5, reduction="none",
    )  # fmt: skip
    call = {**case.call(), "backend": backend}
    found = values_and_gradients(pair_contrast, call, case.wanted, 1)
    expected = values_and_gradients(lambda **call: looped(call), call, case.wanted, 1)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_a_negative_that_is_nan_is_read_by_anchors_of_other_classes(
    denominator: str, backend: str
) -> None:
    keys = torch.eye(4)[[0, 1, 2]]
    keys[2] = torch.nan
    call = torch.eye(4)[:3], torch.tensor([0, 1, 2]), keys, torch.tensor([0, 1, 1])
    found, expected = (
        pair_contrast(*call, denominator=denominator, reduction="none", backend=one)
        for one in (backend, "naive")
    )
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@given(data=st.data())
def test_order_and_names_of_classes_do_not_matter(denominator: str, data: st.DataObject) -> None:
    case = data.draw(cases(denominator=denominator, exclude_self=False, dtype=torch.float64))
    call = case._replace(spoilt=None, label_dtype=(torch.int64, 255), reduction="none").call()
    generator = torch.Generator().manual_seed(case.seed)
    to_anchors = torch.randperm(case.anchors, generator=generator)
    to_keys = torch.randperm(case.keys, generator=generator)
    names = torch.cat([torch.randperm(999, generator=generator) - 1000, torch.tensor([255])])
    shuffled = {
        **call,
        "anchors": call["anchors"][to_anchors],
        "anchor_labels": names[call["anchor_labels"].clamp(max=999)][to_anchors],
        "keys": call["keys"][to_keys],
        "key_labels": names[call["key_labels"].clamp(max=999)][to_keys],
    }
    for labels, order in (("anchor_labels", to_anchors), ("key_labels", to_keys)):
        ignored = call[labels][order] == 255
        shuffled[labels] = torch.where(ignored, 255, shuffled[labels])
    if case.negatives is not None:
        ignored = call["negative_labels"] == 255
        renamed = names[call["negative_labels"].clamp(max=999)]
        shuffled["negative_labels"] = torch.where(ignored, 255, renamed)
    if case.anchor_weight is not None:
        shuffled["anchor_weight"] = call["anchor_weight"][to_anchors]
    found, expected = pair_contrast(**shuffled), pair_contrast(**call)[to_anchors]
    # Sums of another order, of terms as large as the largest score.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 / case.temperature)


def test_a_bank_that_moves_before_backward_is_noticed() -> None:
    call = Case().call()
    leaf = call["anchors"].requires_grad_()
    loss = pair_contrast(**call)
    call["keys"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaf)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_pairs_are_never_held(exclude_self: bool, similarity: str) -> None:
    """A x K is 4 million numbers here; the largest that appears is a tile, or the rows."""
    call = Case(anchors=2048, keys=2048, depth=3, exclude_self=exclude_self).call()
    settings = similarity, 0.1, False, exclude_self, 255
    rows = call["anchors"], call["anchor_labels"], call["keys"], call["key_labels"]
    with Largest(Tensor.numel) as watch:
        roles = PairRolesCall(*rows, call["key_labels"], None, *settings)
        _, _, statistics = eager.pair_contrast(roles)
        eager.pair_contrast_backward(torch.ones(2048), roles, (True, True), statistics)
    assert 0 < watch.largest <= eager.BLOCK * eager.TILE


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


LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 3])


def distances(rows: Tensor) -> Tensor:
    """Of all pairs; 0 with gradient 0 of a row to itself."""
    squared = (rows[:, None] - rows).square().sum(dim=2)
    apart = squared != 0
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def peers(rows: Tensor, temperature: float, supervised: bool) -> Tensor:
    """NTXent, or SupCon, over minus the distance: the mean over pairs within each anchor."""
    score = -distances(rows) / temperature
    same, itself = LABELS[:, None] == LABELS, torch.eye(len(rows), dtype=torch.bool)
    losses = []
    for i in range(len(rows)):
        terms = []
        for p in range(len(rows)):
            if itself[i, p] or not same[i, p]:
                continue
            rivals = score[i][~same[i]]
            others = score[i][~itself[i]] if supervised else torch.cat([score[i, p, None], rivals])
            terms.append(others.logsumexp(dim=0) - score[i, p])
        if terms:
            losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_losses_of_metric_learning(temperature: float, denominator: str, backend: str) -> None:
    rows = normal(0, (8, 5), torch.float64).requires_grad_()
    ours = pair_contrast(
        rows, LABELS, rows, LABELS, exclude_self=True, similarity="euclidean",
        temperature=temperature, denominator=denominator, backend=backend,
    )  # fmt: skip
    theirs = peers(rows, temperature, denominator == "all")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, rows), torch.autograd.grad(theirs, rows))


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_distance_zero_the_gradient_is_zero(backend: str) -> None:
    """Both positives are the anchor itself, and there is nothing to push from."""
    row = torch.tensor([[1.0, 2.0]], requires_grad=True)
    keys = row.detach().repeat(2, 1).requires_grad_()
    loss = pair_contrast(
        row, torch.tensor([0]), keys, torch.tensor([0, 1]), similarity="euclidean", backend=backend
    )
    assert abs(float(loss.detach()) - 0.6931) < 1e-4
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (row, keys)))


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_lengths_at_the_ends(size: float, exclude_self: bool, backend: str) -> None:
    """Squares of such numbers are none in float32; what takes no part may be larger still."""
    call = Case(6, 9, 12, 4, similarity="euclidean", exclude_self=exclude_self).call()
    call["anchor_labels"][0] = 255
    call["anchors"][0] = float("inf")

    def found(factor: float, backend: str) -> list[Tensor]:
        leaves = {name: (call[name] * factor).requires_grad_() for name in ("anchors", "keys")}
        loss = pair_contrast(**{**call, **leaves, "temperature": 0.5 * factor}, backend=backend)
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        return [loss.detach(), *(slope * factor for slope in slopes)]

    torch.testing.assert_close(found(size, backend), found(1.0, "naive"), rtol=1e-4, atol=1e-5)
