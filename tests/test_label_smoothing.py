"""`label_smoothing`: the numbers of torch's cross-entropy, and of the specification."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import protocontrast as pc
from tests.agreement import assert_agrees, contrast_scales
from tests.differentiable import scene, soft_labels
from tests.strategies import ContrastCase, contrast_cases, seeds

BACKENDS = ["eager", "naive"]
SHARE = torch.tensor([0.0, 1.5, 0.25], dtype=torch.float64)


def both(call: Any, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    value = call(*leaves)
    upstream = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


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
    leaves = features.requires_grad_(), prototypes.requires_grad_()
    how = {"label_smoothing": smoothing, "reduction": reduction, "ignore_index": 255}
    if reduction == "none of probabilities":
        labels = soft_labels(labels.clamp(max=2)).softmax(dim=1)
        how = {"label_smoothing": smoothing, "reduction": "none"}
    ours = both(
        lambda f, p: pc.pixel_prototype_contrast(
            f, labels, p, similarity="dot", temperature=1.0, class_weight=weight,
            backend=backend, **how,
        ),
        leaves,
    )  # fmt: skip
    theirs = both(lambda f, p: F.cross_entropy(dots(f, p), labels, weight, **how), leaves)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("soft", [False, True])
@given(data=st.data())
def test_any_call(soft: bool, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(soft=soft))
    # What weighs nothing may count, smoothed: a NaN there is met, and a mean has no bound.
    weight = None if case.reduction == "mean" else case.class_weight
    case = case._replace(spoilt=None, class_weight=weight)
    smoothing = data.draw(st.sampled_from([0.1, 0.9]))
    call = {**case.tensors(), **case.settings, "label_smoothing": smoothing}
    seed = data.draw(seeds)
    scales = contrast_scales({**call, "class_weight": None}, case.settings, seed)
    assert_agrees(
        pc.pixel_prototype_contrast, call, ("features", "prototypes"), scales=scales,
        upstream_seed=seed,
    )  # fmt: skip


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


def test_a_learnt_temperature_beside_it() -> None:
    features, labels, prototypes = scene()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    leaves = features.requires_grad_(), prototypes.requires_grad_(), temperature
    assert torch.autograd.gradcheck(
        lambda f, p, t: pc.pixel_prototype_contrast(
            f, labels, p, temperature=t, label_smoothing=0.2
        ),
        leaves,
    )


def test_compiled() -> None:
    torch.compiler.reset()
    features, labels, prototypes = scene()
    fine = labels[:, None].repeat_interleave(2, dim=2).repeat(1, 3, 1)

    def loss(f: Tensor) -> Tensor:
        contrast = pc.pixel_prototype_contrast(f, labels, prototypes, label_smoothing=0.1)
        return contrast + pc.upsampled_cross_entropy(f[:, :, None], fine, label_smoothing=0.1)

    leaves = (features.requires_grad_(),)
    traced = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(both(traced, leaves), both(loss, leaves))
    torch.compiler.reset()


def test_wrong_labels_are_refused() -> None:
    features, labels, prototypes = scene()
    with pytest.raises(ValueError, match=r"^pixel_prototype_contrast: expected labels in 0\.\.2 "):
        pc.pixel_prototype_contrast(features, labels.clamp(max=7), prototypes, label_smoothing=0.1)


def test_a_case_of_it_would_show() -> None:
    """The scene is not one in which smoothing changes nothing."""
    case = ContrastCase(0, (2, 4, 3, 3), 3)
    call = {**case.tensors(), **case.settings}
    plain, smooth = (pc.pixel_prototype_contrast(**call, label_smoothing=e) for e in (0.0, 0.1))
    assert (plain - smooth).abs() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 0.0, 1.0])])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_logits_of_absent_classes(reduction: str, weight: Tensor | None, backend: str) -> None:
    """A class at -inf is none: as without it, its own pixels being ignored."""
    logits = scene()[0].reshape(2, 4, 2, 3)
    labels = torch.tensor([0, 1, 2, 3, 255]).repeat(12).reshape(2, 5, 6)
    how = {"label_smoothing": 0.3, "reduction": reduction, "backend": backend}
    gone = logits.clone()
    gone[:, 1] = -torch.inf
    kept = torch.tensor([0, 2, 3])
    fewer = torch.tensor([0, 255, 1, 2])[labels.clamp(max=3)]
    fewer = torch.where(labels == 255, 255, fewer)
    less = None if weight is None else weight[kept]
    ours = both(
        lambda z: pc.upsampled_cross_entropy(z, labels, class_weight=weight, **how),
        (gone.requires_grad_(),),
    )
    theirs = both(
        lambda z: pc.upsampled_cross_entropy(z, fewer, class_weight=less, **how),
        (logits[:, kept].requires_grad_(),),
    )
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1][:, kept], theirs[1])
    assert (ours[1][:, 1] == 0).all()


def test_volumes() -> None:
    logits = scene()[0].reshape(1, 2, 4, 2, 3).transpose(1, 2)
    labels = torch.tensor([0, 1, 2, 3, 255]).repeat(12).reshape(1, 3, 4, 5)
    found = pc.upsampled_cross_entropy(logits, labels, label_smoothing=0.2)
    wide = F.interpolate(logits, (3, 4, 5), mode="trilinear")
    expected = F.cross_entropy(wide, labels, ignore_index=255, label_smoothing=0.2)
    torch.testing.assert_close(found, expected)
