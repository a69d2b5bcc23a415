"""Several prototypes per class: the assignment within each class, and the largest of its logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    assign_subclasses,
    class_prototypes,
    pixel_prototype_contrast,
    prototype_logits,
    subclass_max,
)
from tests.strategies import NAN, label_map, normal, seeds

BACKENDS = ["eager", "naive"]


def released(cosines: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Sinkhorn's plan for the pixels of one class, as published: (n, M) from cosines (n, M)."""
    plan = (cosines / epsilon).exp().t()
    prototypes, pixels = plan.shape
    plan = plan / plan.sum()
    for _ in range(iterations):
        plan = plan / plan.sum(dim=1, keepdim=True) / prototypes
        plan = plan / plan.sum(dim=0, keepdim=True) / pixels
    return (plan * pixels).t()


def expected(
    features: Tensor, labels: Tensor, prototypes: Tensor, epsilon: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Labels by the published plan, class by class, and the gap by which each was decided."""
    each = prototypes.shape[1]
    found, gap = torch.full_like(labels, 255), torch.ones(len(labels)).double()
    units = features / features.norm(dim=1, keepdim=True)
    for c, rows in enumerate(prototypes / prototypes.norm(dim=2, keepdim=True)):
        member = labels == c
        if member.any():
            plan = released(units[member] @ rows.t(), epsilon, iterations)
            found[member] = c * each + plan.argmax(dim=1)
            top = plan.topk(min(2, each), dim=1).values
            gap[member] = top[:, 0] - (top[:, 1] if each > 1 else 0)
    return found, gap


@pytest.mark.parametrize("backend", BACKENDS)
@given(
    seed=seeds,
    each=st.sampled_from([1, 2, 5]),
    epsilon=st.sampled_from([0.05, 0.3]),
    iterations=st.sampled_from([1, 3, 10]),
)
def test_it_is_sinkhorn_within_each_class(
    backend: str, seed: int, each: int, epsilon: float, iterations: int
) -> None:
    features, prototypes = normal(seed, (60, 4)), normal(seed + 1, (3, each, 4))
    labels = label_map(seed, (60,), 3)
    truth, gap = expected(features, labels, prototypes, epsilon, iterations)
    found = assign_subclasses(
        features, labels, prototypes, epsilon=epsilon, iterations=iterations, backend=backend
    )
    # Rounding may decide a tie; a class of one pixel has nothing but ties.
    clear = gap > 1e-9
    assert torch.equal(found[clear], truth[clear])
    assert torch.equal(found == 255, labels == 255)
    assert torch.equal(found[labels != 255] // each, labels[labels != 255])


def test_every_prototype_gets_an_equal_share() -> None:
    features, prototypes = normal(0, (1200, 8)), normal(1, (2, 4, 8))
    # All pixels are nearest to one prototype of their class.
    prototypes[:, 0] = 1
    features = features * 0.3 + 1
    labels = torch.arange(1200) % 2
    scores = prototype_logits(features, prototypes.flatten(0, 1))
    own = scores.unflatten(1, (2, 4)).gather(1, labels[:, None, None].expand(-1, 1, 4))[:, 0]
    assert (own.argmax(dim=1) == 0).all()
    found = assign_subclasses(features, labels, prototypes, iterations=50)
    assert (torch.bincount(found, minlength=8) - 150).abs().max() <= 30
    assert (assign_subclasses(features, labels, prototypes, iterations=1) < 255).all()


def test_classes_do_not_influence_each_other() -> None:
    features, prototypes = normal(0, (90, 5)), normal(1, (3, 4, 5))
    labels = label_map(2, (90,), 3)
    together = assign_subclasses(features, labels, prototypes)
    for c in range(3):
        alone = assign_subclasses(features, torch.where(labels == c, c, 255), prototypes)
        assert torch.equal(alone[labels == c], together[labels == c])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_spoilt_pixel_is_ignored_and_spoils_no_other(backend: str) -> None:
    features, prototypes = normal(0, (40, 5)), normal(1, (2, 3, 5))
    labels = torch.arange(40) % 2
    hidden = labels.clone()
    hidden[[3, 8]] = 255
    clean = assign_subclasses(features, hidden, prototypes, backend=backend)
    features[3], features[8] = NAN, float("inf")
    found = assign_subclasses(features, labels, prototypes, backend=backend)
    assert torch.equal(found, clean)


def test_the_only_pixel_of_a_class_goes_to_the_first() -> None:
    features, prototypes = torch.tensor([[0.0, 1.0]]), torch.eye(2)[None]
    assert assign_subclasses(features, torch.tensor([0]), prototypes).tolist() == [0]


def test_one_prototype_per_class_is_the_ordinary_contrast() -> None:
    features, prototypes = normal(0, (2, 5, 12)), normal(1, (3, 1, 5))
    labels = label_map(0, (2, 12), 3)
    assigned = assign_subclasses(features, labels, prototypes)
    assert torch.equal(assigned, labels)
    rows = prototypes.flatten(0, 1)
    assert torch.equal(
        pixel_prototype_contrast(features, assigned, rows),
        pixel_prototype_contrast(features, labels, prototypes[:, 0]),
    )


def test_clusters_within_classes_are_found() -> None:
    """A few rounds of assignment and class means part two clusters per class."""
    centres = normal(3, (2, 2, 6)) * 4
    truth = torch.arange(200) % 4
    features = centres.flatten(0, 1)[truth] + 0.2 * normal(4, (200, 6))
    labels = truth // 2
    prototypes = normal(5, (2, 2, 6))
    for _ in range(6):
        assigned = assign_subclasses(features, labels, prototypes)
        stats = class_prototypes(features, assigned, 4)
        rows = torch.where(stats.present[:, None], stats.mean, prototypes.flatten(0, 1))
        prototypes = rows.unflatten(0, (2, 2))
    for c in range(2):
        pairs = torch.stack([assigned, truth])[:, labels == c].unique(dim=1)
        assert pairs.shape == (2, 2)


@pytest.mark.parametrize("shape", [(7, 5), (2, 5, 7), (2, 5, 3, 4)])
def test_the_largest_of_equal_prototypes_is_the_class_logit(shape: tuple[int, ...]) -> None:
    features, prototypes = normal(0, shape), normal(1, (3, 5))
    doubled = prototypes[:, None].expand(3, 4, 5).flatten(0, 1)
    found = subclass_max(prototype_logits(features, doubled), 3)
    torch.testing.assert_close(found, prototype_logits(features, prototypes))


def test_the_gradient_goes_to_the_largest_and_absence_stays() -> None:
    logits = torch.tensor([[1.0, 3.0, -torch.inf, 0.0, -torch.inf, -torch.inf]])
    logits.requires_grad_()
    found = subclass_max(logits, 3)
    assert found.tolist() == [[3.0, 0.0, -torch.inf]]
    (gradient,) = torch.autograd.grad(found[0, :2].sum(), logits)
    assert gradient.tolist() == [[0, 1, 0, 1, 0, 0]]
