"""`distribution_contrast`: eager equals `naive` in value and every gradient, and the facts hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor

from protocontrast import class_statistics, distribution_contrast, pixel_prototype_contrast
from tests.agreement import values_and_gradients
from tests.strategies import label_map, normal, seeds

BACKENDS = ["eager", "naive"]


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
