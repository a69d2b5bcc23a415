"""`label_smoothing`: the numbers of torch's cross-entropy, and of the specification."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from tests.differentiable import outcome, scene, soft_labels
from tests.strategies import ContrastCase

BACKENDS = ["eager", "naive"]
SHARE = torch.tensor([0.0, 1.5, 0.25], dtype=torch.float64)


def dots(features: Tensor, prototypes: Tensor) -> Tensor:
    return torch.einsum("bdp,cd->bcp", features, prototypes)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", [None, SHARE])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "none of probabilities"])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_it_is_that_of_torch(
    smoothing: float, reduction: str, weight: Tensor | None, backend: str
) -> None:
    features, labels, prototypes = scene()
    how = {"label_smoothing": smoothing, "reduction": reduction, "ignore_index": 255}
    if reduction == "none of probabilities":
        labels = soft_labels(labels.clamp(max=2)).softmax(dim=1)
        how = {"label_smoothing": smoothing, "reduction": "none"}
    calls = (
        lambda f, p: pc.pixel_prototype_contrast(
            f, labels, p, similarity="dot", temperature=1.0, class_weight=weight,
            backend=backend, **how,
        ),
        lambda f, p: F.cross_entropy(dots(f, p), labels, weight, **how),
    )  # fmt: skip
    ours, theirs = (outcome(call, (features, prototypes), [0, 1]) for call in calls)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_weigh(backend: str) -> None:
    """n equal labels of a pixel are n equal pixels."""
    features, labels, prototypes = scene()
    counts = 3 * F.one_hot(labels.clamp(max=2), 3).transpose(1, 2).double()
    counts[0, :, 3] = 0
    settings = {"label_smoothing": 0.2, "reduction": "none", "backend": backend}
    whole = pc.pixel_prototype_contrast(features, counts, prototypes, **settings)
    hard = torch.where(counts.sum(dim=1) == 0, 255, labels.clamp(max=2))
    each = pc.pixel_prototype_contrast(features, hard, prototypes, **settings)
    torch.testing.assert_close(whole, 3 * each)


@pytest.mark.parametrize("backend", BACKENDS)
def test_absent_classes_take_nothing(backend: str) -> None:
    """As if they were not there; a pixel that is labelled with one stays ignored."""
    features, labels, prototypes = scene()
    present = torch.tensor([True, False, True])
    settings = {"label_smoothing": 0.4, "backend": backend}
    prototypes[1] = torch.nan
    features[0, :, 1] = torch.nan  # labelled with the absent class
    ours = pc.pixel_prototype_contrast(features, labels, prototypes, present=present, **settings)
    fewer = torch.where(labels == 1, 255, torch.where(labels == 2, 1, labels))
    theirs = pc.pixel_prototype_contrast(features, fewer, prototypes[present], **settings)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_floor_takes_its_share(backend: str) -> None:
    features, labels, prototypes = scene()
    present = torch.tensor([True, False, True])
    ours = pc.pixel_prototype_contrast(
        features, labels, prototypes, present=present, absent="floor", label_smoothing=0.4,
        temperature=0.5, backend=backend,
    )  # fmt: skip
    logits = pc.prototype_logits(features, prototypes, present=present, temperature=0.5)
    logits = torch.where(logits == -torch.inf, -2.0, logits)
    theirs = F.cross_entropy(logits, labels, ignore_index=255, label_smoothing=0.4)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("labels", [255, 0])
def test_without_weight_the_mean_is_zero(labels: int, backend: str) -> None:
    """Where torch divides by 0."""
    features, given, prototypes = scene()
    leaf = features.requires_grad_()
    share = torch.tensor([0.0, 1.0, 1.0])
    loss = pc.pixel_prototype_contrast(
        leaf, torch.full_like(given, labels), prototypes, class_weight=share, backend=backend,
        label_smoothing=0.1,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert loss == 0
    assert (gradient == 0).all()
    logits = torch.ones(1, 3, 2, 2, requires_grad=True)
    loss = pc.upsampled_cross_entropy(
        logits, torch.full((1, 4, 4), labels), class_weight=share, backend=backend,
        label_smoothing=0.1,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert (gradient == 0).all()


def test_a_case_of_it_would_show() -> None:
    """The scene is not one in which smoothing changes nothing."""
    case = ContrastCase(0, (2, 4, 3, 3), 3)
    call = {**case.tensors(), **case.settings}
    plain, smooth = (pc.pixel_prototype_contrast(**call, label_smoothing=e) for e in (0.0, 0.1))
    assert (plain - smooth).abs() > 1e-3
