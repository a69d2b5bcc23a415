"""Classes at -inf: they carry no mass, take no gradient, and what has weight 0 counts nothing."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import protocontrast as pc
from tests.strategies import label_map, normal, seeds

BACKENDS = ["eager", "naive"]
SHAPE, SIZE = (2, 5, 3, 4), (2, 3, 4)
PRESENT = torch.tensor([True, True, False, True, False])
KEPT = PRESENT.nonzero()[:, 0]


def scores(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Logits of which two classes are absent."""
    return normal(seed, shape).masked_fill(~PRESENT[:, None, None], -torch.inf)


def labels(seed: int, size: tuple[int, ...] = SIZE, among: int = 5) -> Tensor:
    return label_map(seed, size, among)


def renumbered(given: Tensor) -> Tensor:
    """Labels of present classes among themselves; those of absent ones are ignored."""
    table = torch.full((256,), 255)
    table[KEPT] = torch.arange(len(KEPT))
    return table[given]


def _subclass_max(logits: Tensor, labels: Tensor) -> Tensor:
    pairs = logits.repeat_interleave(2, dim=1)
    merged = pc.subclass_max(pairs, logits.shape[1])
    return merged.masked_fill(merged == -torch.inf, 0)


def _rectified(logits: Tensor, labels: Tensor) -> Tensor:
    return pc.rectify(logits.softmax(1), (2 * logits).softmax(1))


def _upsampled(volume: bool, logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
    """With a weight of each class that is there, in labels twice as wide, of slices or maps."""
    weight = torch.tensor([0.5, 2.0, 7.0, 0.0, 7.0])
    weight = weight if logits.shape[1] == len(weight) else weight[KEPT]
    if volume:
        logits, labels = logits[:, :, None], labels[:, None].expand(-1, 2, -1, -1)
    wide = labels.repeat_interleave(2, dim=-1)
    return pc.upsampled_cross_entropy(logits, wide, class_weight=weight, **settings)


CALLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "entropy": lambda logits, labels: pc.entropy(logits),
    "mrkld": lambda logits, labels: pc.mrkld(logits),
    "symmetric": lambda logits, labels: pc.symmetric_cross_entropy(logits, labels),
    "agreement": lambda logits, labels: pc.similarity_kl(logits, logits.detach().flip(0)),
    **{
        f"upsampled {backend} {smoothing} {reduction}{' volume' * volume}": partial(
            _upsampled, volume, label_smoothing=smoothing, reduction=reduction, backend=backend
        )
        for backend in BACKENDS
        for smoothing, reduction in ((0.0, "mean"), (0.3, "mean"), (0.3, "sum"))
        for volume in (False, True)
    },
    "subclass maximum": _subclass_max,
    "rectified": _rectified,
    "assigned": lambda logits, labels: pc.sinkhorn(logits) + 0 * logits.nan_to_num(neginf=0),
}


@pytest.mark.parametrize("name", CALLS)
@given(seed=seeds)
def test_absent_classes_might_as_well_not_be_there(name: str, seed: int) -> None:
    given_labels = KEPT[labels(seed, among=len(KEPT)).clamp_max(len(KEPT) - 1)]
    if name.startswith("upsampled"):
        given_labels = labels(seed)
    results = []
    for logits, classes in (
        (scores(seed), given_labels),
        (scores(seed)[:, PRESENT], renumbered(given_labels)),
    ):
        leaf = logits.clone().requires_grad_()
        value = CALLS[name](leaf, classes)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        results.append((value.detach(), gradient))
    (value, gradient), (expected, its_gradient) = results
    assert torch.isfinite(value).all()
    if value.dim():
        assert (value[:, ~PRESENT] == 0).all()
        value = value[:, PRESENT]
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    assert (gradient[:, ~PRESENT] == 0).all()
    torch.testing.assert_close(gradient[:, PRESENT], its_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["entropy", "mrkld", "symmetric", "agreement"])
def test_pixels_without_any_class_are_ignored(name: str) -> None:
    logits = torch.full((3, 4), -torch.inf, requires_grad=True)
    value = CALLS[name](logits, torch.tensor([0, 1, 0]))
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert not gradient.any()


@given(seed=seeds)
def test_probabilities_of_absent_classes_label_nothing(seed: int) -> None:
    shares = scores(seed).softmax(dim=1)
    found, expected = (
        pc.select_labels(some, 0.1, measure="log_odds") for some in (shares, shares[:, PRESENT])
    )
    assert torch.equal(renumbered(found.labels), expected.labels)
    torch.testing.assert_close(found.confidence, expected.confidence, rtol=1e-9, atol=1e-9)
    thresholds = pc.ClassThresholds(5, share=0.5)
    thresholds.update(shares)
    assert (thresholds.mass.sum(dim=1)[~PRESENT] == 0).all()
    assert torch.isin(thresholds.select(shares).labels, torch.tensor([*KEPT, 255])).all()
    assert pc.confident_share(shares, 0.5) == pc.confident_share(shares[:, PRESENT], 0.5)


def test_infinite_odds_do_not_reach_an_infinite_threshold() -> None:
    """The only present class has all the probability, and infinite odds."""
    shares = torch.tensor([[1.0, 0.0], [0.6, 0.4]])
    for threshold in (math.inf, torch.tensor([math.inf, 0.0])):
        found = pc.select_labels(shares, threshold, measure="log_odds")
        assert found.labels.tolist() == [255, 255]
    assert pc.select_labels(shares, 1.0, measure="log_odds").labels.tolist() == [0, 255]


def assert_absent_where_a_cell_is(
    seed: int, least: float, size: tuple[int, int], aligned: bool, backend: str
) -> None:
    """Cells are absent where a random number is above `least`.

    Against logits that are upsampled whole, and masked where what is absent counts.
    """
    logits = normal(seed, SHAPE)
    gone = normal(seed + 1, SHAPE) > least
    given_labels = labels(seed, (2, *size))

    def upsampled(values: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(values, size, mode="bilinear", align_corners=aligned)

    finite = logits.clone().requires_grad_()
    # What is read of a cell that is gone is more than rounding leaves.
    absent = upsampled(gone.double()) > 1e-9
    shown = upsampled(finite).masked_fill(absent, -torch.inf)
    kept = (given_labels != 255) & ~absent.gather(1, given_labels.clamp_max(4)[:, None])[:, 0]
    rows, classes = shown.movedim(1, -1)[kept], given_labels[kept]
    expected = torch.nn.functional.cross_entropy(rows, classes, reduction="sum") if len(rows) else 0
    expected = (expected + 0 * finite.sum()) / max(len(rows), 1)
    (its_gradient,) = torch.autograd.grad(expected, finite)

    leaf = logits.masked_fill(gone, -torch.inf).requires_grad_()
    loss = pc.upsampled_cross_entropy(leaf, given_labels, align_corners=aligned, backend=backend)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    assert (gradient[gone] == 0).all()
    torch.testing.assert_close(gradient[~gone], its_gradient[~gone], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(3, 4), (6, 8), (7, 9)])
@given(seed=seeds, least=st.sampled_from([0.0, 1.0, 2.0]), aligned=st.booleans())
def test_upsampled_classes_are_absent_where_a_cell_that_counts_is(
    size: tuple[int, int], backend: str, seed: int, least: float, aligned: bool
) -> None:
    assert_absent_where_a_cell_is(seed, least, size, aligned, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_of_prototypes_upsampled_to_the_same_size_are_the_contrast(backend: str) -> None:
    features, prototypes = normal(0, (2, 6, 3, 4)), normal(1, (5, 6))
    settings: dict[str, Any] = {"present": PRESENT, "backend": backend}
    logits = pc.prototype_logits(features, prototypes, **settings)
    loss = pc.upsampled_cross_entropy(logits, labels(2), backend=backend)
    contrast = pc.pixel_prototype_contrast(features, labels(2), prototypes, **settings)
    torch.testing.assert_close(loss, contrast, rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pixel_without_any_class_is_ignored(backend: str) -> None:
    logits = normal(0, SHAPE)
    logits[0] = -torch.inf
    given_labels = label_map(1, (2, 6, 8), 5, "full")
    leaf = logits.clone().requires_grad_()
    loss = pc.upsampled_cross_entropy(leaf, given_labels, backend=backend)
    expected = pc.upsampled_cross_entropy(logits[1:], given_labels[1:], backend=backend)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert torch.isfinite(gradient).all()
    assert (gradient[0] == 0).all()


def test_an_impossible_label_costs_what_has_weight() -> None:
    logits = torch.tensor([[0.0, -math.inf]], requires_grad=True)
    reverse = pc.symmetric_cross_entropy(logits, torch.tensor([1]), cross_entropy_weight=0)
    assert reverse.item() == pytest.approx(-math.log(1e-4))
    assert torch.autograd.grad(reverse, logits)[0].tolist() == [[0, 0]]
    both = pc.symmetric_cross_entropy(logits, torch.tensor([1]))
    assert both.item() == math.inf
    assert torch.isfinite(torch.autograd.grad(both, logits)[0]).all()
    ignored = pc.symmetric_cross_entropy(logits, torch.tensor([1]), pixel_weight=torch.zeros(1))
    assert ignored.item() == 0


def test_balanced_logits_of_absent_classes_stay_absent() -> None:
    """And the others learn as if those classes were not there."""
    given_labels = KEPT[label_map(3, (2, 12, 12), 3, "full")]
    logits = scores(1, (2, 5, 12, 12))
    balance = pc.LogitBalance(5, 2, pixels=8)
    small = pc.LogitBalance(3, 2, pixels=8)
    for _ in range(2):
        balance.update(logits, given_labels)
        small.update(logits[:, PRESENT], renumbered(given_labels))
    assert balance.count[0].tolist() == [2, 2, 0, 2, 0]
    found = balance.delta(logits, given_labels)
    assert (found[:, ~PRESENT] == 0).all()
    expected = small.delta(logits[:, PRESENT], renumbered(given_labels))
    torch.testing.assert_close(found[:, PRESENT], expected, rtol=1e-5, atol=1e-5)
    for strength in (-1.0, 0.0, 0.5):
        balance.strength = strength
        assert torch.equal(balance(logits, given_labels) == -torch.inf, logits == -torch.inf)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_a_direction_without_weight_may_be_anything(weights: tuple[float, float]) -> None:
    """NaN pixels of a direction that is switched off reach neither the loss nor a gradient."""
    maps = [normal(i, (1, 4, 2, 3), torch.float32) for i in range(2)]
    maps[weights[0] == 0][0, :, 1, 1] = math.nan
    leaves = [one.requires_grad_() for one in maps]
    bicl = pc.BiCL(2, 4, weights=weights, threshold=0.0).eval()
    for bank in (bicl.source_bank, bicl.target_bank):
        bank.update(normal(5, (6, 4), torch.float32), torch.arange(6) % 2)
    given_labels = torch.tensor([[[0, 1, 0], [1, 0, 1]]])
    out = bicl(leaves[0], given_labels, leaves[1], given_labels)
    off = (out.target_to_source, out.source_to_target)[weights[0] != 0]
    assert off.isnan()
    assert torch.isfinite(out.loss)
    for gradient in torch.autograd.grad(out.loss, leaves):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_nothing_comes_back_to_what_is_not_asked_for(normalize: bool) -> None:
    """Losses of single pixels are masked after the fact: their upstream gradient is 0."""
    features = normal(0, (4, 3), torch.float32)
    features[2, 1] = math.nan
    prototypes, classes = normal(1, (2, 3), torch.float32), torch.tensor([0, 1, 0, 1])
    for call in (
        lambda f, p: pc.pixel_prototype_contrast(f, classes, p, reduction="none"),
        lambda f, p: pc.distribution_contrast(
            f, classes, p, torch.ones(2, 3), normalize=normalize, reduction="none"
        ),
        lambda f, p: pc.pair_contrast(f, classes, p, torch.arange(2), reduction="none"),
    ):
        leaves = features.clone().requires_grad_(), prototypes.clone().requires_grad_()
        losses = call(*leaves)
        assert losses.isnan().tolist() == [False, False, True, False]
        kept = torch.where(losses.isnan(), 0, losses).sum()
        to_features, to_prototypes = torch.autograd.grad(kept, leaves)
        assert torch.isfinite(to_features).all()
        assert torch.isfinite(to_prototypes).all()
        assert (to_features[2] == 0).all()


@pytest.mark.parametrize("soft", [False, True])
def test_weights_may_be_as_small_as_a_float(soft: bool) -> None:
    """One over their sum is infinite."""
    features, prototypes = normal(0, (3, 4), torch.float32), normal(1, (2, 4), torch.float32)
    classes = torch.tensor([0, 1, 255])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]) if soft else classes
    leaf = features.requires_grad_()
    small = torch.full((3,), 1e-39)
    loss = pc.pixel_prototype_contrast(leaf, targets, prototypes, pixel_weight=small)
    expected = pc.pixel_prototype_contrast(leaf, targets, prototypes)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    found, wanted = (torch.autograd.grad(one, leaf)[0] for one in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
