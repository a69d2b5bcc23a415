"""`distribution_contrast`: eager equals `naive` in value and every gradient, and the facts hold."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    PrototypeBank,
    class_statistics,
    distribution_contrast,
    pixel_prototype_contrast,
)
from tests.agreement import assert_agrees, values_and_gradients
from tests.small_tiles import small_tiles
from tests.strategies import (
    NAN,
    ContrastCase,
    contrast_cases,
    label_map,
    normal,
    pixel_mass,
    rows_of,
    seeds,
)

BACKENDS = ["eager", "naive"]
WANTED = [("features",), ("prototypes",), ("variance",), ("features", "prototypes", "variance")]


def call_of(case: ContrastCase, normalize: bool) -> dict[str, Any]:
    """The case's tensors with a variance beside its prototypes, NaN where a class is absent."""
    call = case.tensors()
    prototypes, present = call["prototypes"], call["present"]

    variance = normal(case.seed + 9, tuple(prototypes.shape), prototypes.dtype).square()
    if present is not None:
        variance = torch.where(present[:, None], variance, NAN)
    settings = {**case.settings, "normalize": normalize}
    del settings["similarity"], settings["absent"]
    return {**call, "variance": variance, **settings}


def scales_of(case: ContrastCase, call: dict[str, Any], upstream_seed: int) -> dict[str, float]:
    """Sizes of the terms that cancel; a gradient carries the rounding of the softmax under it."""
    mass = pixel_mass(call, case.settings).flatten()
    reduction, temperature = call["reduction"], call["temperature"]
    shape = tuple(call["labels"].shape)
    if call["labels"].is_floating_point():
        shape = shape[:1] + shape[2:]
    upstream = normal(upstream_seed, shape if reduction == "none" else ()).abs().flatten()
    weight = float(mass.max() if reduction == "none" else mass.sum()) if mass.numel() else 0.0
    if reduction == "mean":
        mass = mass / max(float(mass.sum()), 1e-30)
        weight = min(weight, 1.0)
    kept = mass != 0
    lengths = rows_of(call["features"]).double().norm(dim=1)[kept]
    if not lengths.numel():
        return {"value": 1.0, "features": 0.0, "prototypes": 0.0, "variance": 0.0}
    slope = (2 * mass * upstream)[kept]
    here = call["present"] if call["present"] is not None else slice(None)
    means = call["prototypes"].double()[here].norm(dim=1)
    furthest = float(means.max()) if means.numel() else 0.0
    widest = float(call["variance"].double()[here].max()) if means.numel() else 0.0
    reach = torch.ones_like(lengths) if call["normalize"] else lengths
    logit = float((reach * furthest / temperature).max())
    logit += float((reach.square() * widest).max()) / temperature**2
    to_pixel = furthest / temperature + reach * widest / temperature**2
    if call["normalize"]:
        to_pixel = torch.where(lengths > 0, to_pixel / lengths, 0)
    return {
        "value": 2 * (logit + 5) * weight,
        "features": float((slope * to_pixel).max()) * (1 + logit),
        "prototypes": float((slope * reach).sum()) / temperature * (1 + logit),
        "variance": float((slope * reach.square()).sum()) / temperature**2 * (1 + logit),
    }


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@given(data=st.data())
def test_any_call(soft: bool, normalize: bool, data: st.DataObject) -> None:
    case = data.draw(contrast_cases(similarity="dot", soft=soft))
    call, seed = call_of(case, normalize), data.draw(seeds)
    wanted = data.draw(st.sampled_from(WANTED))
    with small_tiles():
        assert_agrees(
            distribution_contrast, call, wanted, scales=scales_of(case, call, seed),
            upstream_seed=seed,
        )  # fmt: skip


def released(features: Tensor, labels: Tensor, mean: Tensor, spread: Tensor, tau: float) -> Tensor:
    """SePiCo's estimator: cross-entropy of the raised logits, and the own class's bonus again."""
    unit = F.normalize(features, dim=1)
    bonus = 0.5 * (unit[:, None].square() * spread / tau**2).sum(dim=2)
    logits = unit @ mean.t() / tau + bonus
    own = bonus.gather(1, labels[:, None])[:, 0]
    return F.cross_entropy(logits, labels) + own.mean()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("temperature", [0.5, 100.0])
def test_the_released_estimator(temperature: float, backend: str) -> None:
    features, labels = normal(0, (40, 6)).abs(), label_map(1, (40,), 5, "full")
    stats = class_statistics(normal(2, (200, 6)).abs(), label_map(3, (200,), 5), 5, normalize=True)
    call = {"features": features, "prototypes": stats.mean, "variance": stats.variance}

    def ours(features: Tensor, prototypes: Tensor, variance: Tensor) -> Tensor:
        return distribution_contrast(
            features, labels, prototypes, variance, temperature=temperature, backend=backend
        )

    def theirs(features: Tensor, prototypes: Tensor, variance: Tensor) -> Tensor:
        return released(features, labels, prototypes, variance, temperature)

    found, expected = (values_and_gradients(one, call, list(call), 0) for one in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@given(seed=seeds)
def test_zero_variance_is_the_contrast_with_means(backend: str, seed: int) -> None:
    features, prototypes = normal(seed, (2, 7, 9)), normal(seed + 1, (4, 7))
    labels = label_map(seed, (2, 9), 4)
    found = distribution_contrast(
        features, labels, prototypes, torch.zeros_like(prototypes), temperature=0.3,
        reduction="none", backend=backend,
    )  # fmt: skip
    units = features / features.norm(dim=1, keepdim=True)
    expected = pixel_prototype_contrast(
        units, labels, prototypes, similarity="dot", temperature=0.3, reduction="none"
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_bounds_what_sampled_keys_would_give(backend: str) -> None:
    """Per pixel the loss is at least the mean cross-entropy over keys drawn from the classes."""
    random = torch.Generator().manual_seed(0)
    features = F.normalize(normal(0, (3, 4)), dim=1)
    means, spread = normal(1, (3, 4)) * 0.5, normal(2, (3, 4)).square() * 0.4
    labels = torch.arange(3)
    bound = distribution_contrast(
        features, labels, means, spread, temperature=1.0, reduction="none", backend=backend
    )
    draws = torch.randn(40_000, 3, 4, generator=random, dtype=torch.float64)
    keys = means + spread.sqrt() * draws
    logits = torch.einsum("id,scd->sic", features, keys)
    own = torch.diagonal(logits, dim1=1, dim2=2)
    negatives = logits.exp() * (1 - torch.eye(3))
    # The positive key is drawn apart from the denominator's, as in the derivation of the bound.
    other = (means + spread.sqrt() * draws.roll(1, dims=0)).mul(features).sum(dim=2)
    total = negatives.sum(dim=2) + other.exp()
    sampled = total.log() - own
    error = sampled.std(dim=0) / math.sqrt(len(draws))
    assert (sampled.mean(dim=0) < bound + 4 * error).all()
    # In the limit of many keys per class in the denominator the bound is reached.
    limit = total.mean(dim=0).log() - (features * means).sum(dim=1)
    torch.testing.assert_close(limit, bound, rtol=0, atol=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "case",
    [
        ContrastCase(0, (2, 5, 3, 4), 3, label_kind="all_ignored", spoilt=NAN, similarity="dot"),
        ContrastCase(0, (2, 5, 3, 4), 3, presence="none", label_kind="full", similarity="dot"),
        ContrastCase(0, (0, 5, 3, 4), 3, similarity="dot"),
        ContrastCase(0, (2, 5, 3, 4), 3, label_kind="all_ignored", soft=True, similarity="dot"),
    ],
    ids=["ignored", "absent", "empty", "soft"],
)
def test_no_valid_pixel_is_zero_and_connected(
    case: ContrastCase, reduction: str, backend: str
) -> None:
    call = {**call_of(case, True), "reduction": reduction, "backend": backend}
    leaves = [call[name].requires_grad_() for name in WANTED[-1]]
    loss = distribution_contrast(**call)
    assert (loss == 0).all()
    for gradient in torch.autograd.grad(loss.sum(), leaves):
        assert (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_pixel_of_zero_length(normalize: bool, backend: str) -> None:
    features = torch.zeros(1, 3, requires_grad=True)
    call = normal(0, (4, 3), torch.float32), normal(1, (4, 3), torch.float32).square()
    loss = distribution_contrast(
        features, torch.tensor([2]), *call, normalize=normalize, backend=backend
    )
    assert loss.item() == pytest.approx(math.log(4))
    (gradient,) = torch.autograd.grad(loss, features)
    assert gradient.isfinite().all()
    assert (gradient == 0).all() == normalize


def test_a_unit_gradient_is_orthogonal_to_its_pixel() -> None:
    features = normal(0, (9, 6)).requires_grad_()
    call = label_map(0, (9,), 4, "full"), normal(1, (4, 6)), normal(2, (4, 6)).square()
    loss = distribution_contrast(features, *call, temperature=0.5)
    (gradient,) = torch.autograd.grad(loss, features)
    radial = (gradient * features).sum(dim=1)
    torch.testing.assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-14)
    longer = distribution_contrast(features * 7, *call, temperature=0.5)
    torch.testing.assert_close(longer, loss)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_bank_may_change_before_backward(reduction: str) -> None:
    features, labels = normal(0, (2, 4, 9), torch.float32), label_map(0, (2, 9), 3)
    bank = PrototypeBank(3, 4, rule="replace", variance=True)
    bank.update(features, labels)
    leaf = features.clone().requires_grad_()
    gradients = []
    for moves in (False, True):
        loss = distribution_contrast(
            leaf, labels, bank.prototypes, bank.variance, present=bank.present,
            temperature=0.5, reduction=reduction,
        )  # fmt: skip
        if moves:
            bank.update(features * 3, labels)
        gradients.append(torch.autograd.grad(loss.sum(), leaf)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_gradient_has_the_features_dtype_and_memory_format(
    dtype: torch.dtype, layout: str
) -> None:
    features = normal(0, (2, 4, 3, 5), dtype)
    if layout == "channels_last":
        features = features.to(memory_format=torch.channels_last)
    features.requires_grad_()
    labels = label_map(0, (2, 3, 5), 3)
    loss = distribution_contrast(features, labels, torch.eye(3, 4), torch.ones(3, 4))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.dtype == torch.float32
    assert (gradient.dtype, gradient.stride()) == (dtype, features.stride())
