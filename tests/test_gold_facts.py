"""Facts about contrast and class means that any right implementation shows, with numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from protocontrast import (
    bidirectional_contrast,
    class_prototypes,
    labels_to_grid,
    pixel_prototype_contrast,
    prototype_logits,
)
from tests.strategies import label_map, normal, seeds

pytestmark = pytest.mark.parametrize("backend", ["eager", "naive"])


def loss_of(features: Tensor, labels: Tensor, prototypes: Tensor, **settings: Any) -> float:
    return pixel_prototype_contrast(features, labels, prototypes, **settings).item()


def at_cosine(cosine: float, num_classes: int) -> Tensor:
    """A matrix of unit rows with one cosine between any two."""
    eye = torch.eye(num_classes, dtype=torch.float64)
    return torch.linalg.cholesky((1 - cosine) * eye + cosine)


@pytest.mark.parametrize(("num_classes", "loss"), [(19, 2.944439), (16, 2.772589), (13, 2.564949)])
def test_equal_cosines_give_the_logarithm_of_the_classes(
    num_classes: int, loss: float, backend: str
) -> None:
    labels = torch.arange(5) % num_classes
    equal = normal(0, (1, 8)).expand(num_classes, 8)
    assert loss_of(normal(1, (5, 8)), labels, equal, backend=backend) == pytest.approx(loss)
    orthogonal = torch.eye(num_classes + 1, dtype=torch.float64)
    features = orthogonal[-1:].expand(5, -1)
    found = loss_of(features, labels, orthogonal[:-1], backend=backend)
    assert found == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(("cosine", "temperature"), [(1.0, 0.1), (0.3, 0.5), (-0.2, 1.0)])
def test_some_classes_seen_at_one_cosine(cosine: float, temperature: float, backend: str) -> None:
    seen, num_classes = 5, 19
    prototypes = torch.tensor([[cosine, math.sqrt(1 - cosine**2)]] * num_classes).double()
    present = torch.arange(num_classes) < seen
    call = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([2]), prototypes
    settings = {"present": present, "temperature": temperature, "backend": backend}
    assert loss_of(*call, **settings) == pytest.approx(math.log(seen))
    rest = (num_classes - seen) * math.exp((-1 - cosine) / temperature)
    floored = loss_of(*call, absent="floor", **settings)
    assert floored == pytest.approx(math.log(seen + rest), rel=1e-6)
    if cosine == 1:
        assert floored == pytest.approx(1.609438, abs=5e-7)


def test_perfect_alignment_among_seen_classes(backend: str) -> None:
    seen, num_classes, cosine, temperature = 5, 19, 0.25, 0.1
    rows = at_cosine(cosine, seen)
    prototypes = torch.cat([rows, torch.full((num_classes - seen, seen), math.nan).double()])
    found = loss_of(
        rows, torch.arange(seen), prototypes, present=torch.arange(num_classes) < seen,
        temperature=temperature, absent="floor", backend=backend,
    )  # fmt: skip
    near = (seen - 1) * math.exp((cosine - 1) / temperature)
    expected = math.log(1 + near + (num_classes - seen) * math.exp(-2 / temperature))
    assert found == pytest.approx(expected)
    assert found == pytest.approx(0.0022099, abs=5e-8)


@pytest.mark.parametrize(
    ("temperature", "lowest", "highest"),
    [
        (0.1, 0.0, 22.8904),
        (0.07, 0.0, 31.4618),
        (1.0, 1.234318, 4.897862),
        (50.0, 2.906585, 2.982373),
        (100.0, 2.925502, 2.963396),
    ],
)
@given(seed=seeds)
def test_bounds_and_where_they_are_reached(
    temperature: float, lowest: float, highest: float, backend: str, seed: int
) -> None:
    settings = {"temperature": temperature, "backend": backend}
    towards, away = torch.eye(2).double()[:1], -torch.eye(2).double()[:1]
    label = torch.tensor([0])
    best = loss_of(towards, label, torch.cat([towards, away.expand(18, 2)]), **settings)
    worst = loss_of(towards, label, torch.cat([away, towards.expand(18, 2)]), **settings)
    assert best == pytest.approx(lowest, abs=5e-7)
    assert worst == pytest.approx(highest, abs=5e-5)
    losses = pixel_prototype_contrast(
        normal(seed, (20, 3)), label_map(seed, (20,), 19, "full"), normal(seed + 1, (19, 3)),
        reduction="none", **settings,
    )  # fmt: skip
    assert (losses >= best - 1e-12).all()
    assert (losses <= worst + 1e-12).all()


@pytest.mark.parametrize(("temperature", "loss"), [(1.0, 1.982928), (100.0, 2.934442)])
def test_a_simplex_of_prototypes(temperature: float, loss: float, backend: str) -> None:
    rows = at_cosine(-1 / 18 + 1e-12, 19)
    found = loss_of(rows, torch.arange(19), rows, temperature=temperature, backend=backend)
    assert found == pytest.approx(loss, abs=1e-6)


def test_a_feature_is_turned_and_never_stretched(backend: str) -> None:
    features = normal(0, (30, 7)).requires_grad_()
    labels, prototypes = label_map(1, (30,), 5), normal(2, (5, 7))
    loss = pixel_prototype_contrast(features, labels, prototypes, backend=backend)
    (gradient,) = torch.autograd.grad(loss, features)
    assert ((gradient * features).sum(dim=1).abs() < 1e-8).all()
    assert (gradient[labels == 255] == 0).all()
    stretched = features * torch.linspace(0.1, 9, 30).double()[:, None]
    found = pixel_prototype_contrast(stretched, labels, prototypes, backend=backend)
    torch.testing.assert_close(found, loss, rtol=1e-12, atol=0)
    means = [
        class_prototypes(rows, labels, 5, backend=backend).mean for rows in (features, stretched)
    ]
    assert (means[0] - means[1]).abs().max() > 0.1


@given(seed=seeds)
def test_orders_and_repetitions(backend: str, seed: int) -> None:
    features, prototypes = normal(seed, (12, 4)), normal(seed + 1, (5, 4))
    labels, weight = label_map(seed, (12,), 5), torch.arange(1, 6).double()
    generator = torch.Generator().manual_seed(seed)
    expected = loss_of(features, labels, prototypes, class_weight=weight, backend=backend)

    def assert_same(*call: Tensor, **settings: Any) -> None:
        found = loss_of(*call, backend=backend, **settings)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)

    pixels = torch.randperm(12, generator=generator)
    assert_same(features[pixels], labels[pixels], prototypes, class_weight=weight)
    classes = torch.randperm(5, generator=generator)
    moved = torch.where(labels == 255, 255, classes.argsort()[labels.clamp(max=4)])
    assert_same(features, moved, prototypes[classes], class_weight=weight[classes])
    assert_same(torch.cat([features] * 2), torch.cat([labels] * 2), prototypes, class_weight=weight)
    times = torch.randint(0, 4, (12,), generator=generator)
    repeated = features.repeat_interleave(times, dim=0), labels.repeat_interleave(times)
    found = loss_of(*repeated, prototypes, backend=backend)
    weighted = loss_of(features, labels, prototypes, pixel_weight=times.double(), backend=backend)
    assert weighted == pytest.approx(found, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("grid", "size"), [((5, 7), (40, 56)), ((5, 7), (33, 20)), ((92, 92), (730, 730))]
)
def test_counts_equal_upsampled_logits(
    grid: tuple[int, int], size: tuple[int, int], backend: str
) -> None:
    features = normal(0, (1, 4, *grid), torch.float32).requires_grad_()
    labels, prototypes = label_map(1, (1, *size), 6), normal(2, (6, 4), torch.float32)
    counts = labels_to_grid(labels, grid, mode="counts", num_classes=6)
    small = pixel_prototype_contrast(features, counts, prototypes, backend=backend)
    logits = prototype_logits(features, prototypes, backend=backend)
    large = cross_entropy(interpolate(logits, size=size, mode="nearest"), labels, ignore_index=255)
    torch.testing.assert_close(small, large, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss, features)[0] for loss in (small, large)]
    largest = float(gradients[1].abs().max())
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5 * largest)


def test_the_gradient_in_closed_form(backend: str) -> None:
    features, labels = normal(0, (9, 4)).requires_grad_(), torch.arange(9) % 3
    prototypes = normal(1, (3, 4))
    temperature = 0.3
    loss = pixel_prototype_contrast(
        features, labels, prototypes, temperature=temperature, backend=backend
    )
    (gradient,) = torch.autograd.grad(loss, features)
    units = prototypes / prototypes.norm(dim=1, keepdim=True)
    for i, feature in enumerate(features.detach()):
        q = feature / feature.norm()
        share = torch.softmax(units @ q / temperature, dim=0)
        pull = share @ units - units[labels[i]]
        expected = (pull - q * (q @ pull)) / (temperature * 9 * feature.norm())
        torch.testing.assert_close(gradient[i], expected, rtol=1e-10, atol=1e-14)


def test_slopes_of_logits_sum_to_zero(backend: str) -> None:
    # Under the dot product dL/dp_c = sum_i slope_ic f_i / tau, so the rows sum to zero as well.
    prototypes = normal(1, (5, 4)).requires_grad_()
    loss = pixel_prototype_contrast(
        normal(0, (9, 4)), torch.arange(9) % 5, prototypes, similarity="dot", backend=backend
    )
    (gradient,) = torch.autograd.grad(loss, prototypes)
    assert gradient.abs().max() > 1e-3
    assert (gradient.sum(dim=0).abs() < 1e-12).all()


def test_directions_are_mirror_images(backend: str) -> None:
    source, target = normal(0, (2, 8, 5, 7)), normal(1, (2, 8, 5, 7))
    labels = label_map(2, (2, 20, 28), 4), label_map(3, (2, 20, 28), 4)
    settings = {"num_classes": 4, "backend": backend}
    one = bidirectional_contrast(source, labels[0], target, labels[1], **settings)
    other = bidirectional_contrast(target, labels[1], source, labels[0], **settings)
    assert torch.equal(one.target_to_source, other.source_to_target)
    assert torch.equal(one.source_to_target, other.target_to_source)
    same = bidirectional_contrast(source, labels[0], source, labels[0], **settings)
    assert torch.equal(same.target_to_source, same.source_to_target)


@given(seed=seeds)
def test_class_means(backend: str, seed: int) -> None:
    labels = label_map(seed, (2, 3, 5), 6)

    def means(features: Tensor) -> Any:
        return class_prototypes(features, labels, 6, backend=backend)

    a, b = normal(seed, (2, 4, 3, 5)), normal(seed + 1, (2, 4, 3, 5))
    constant = normal(seed + 2, (4,))
    stats = means(constant[:, None, None].expand(2, 4, 3, 5))
    expected = torch.where(stats.present[:, None], constant, 0)
    torch.testing.assert_close(stats.mean, expected, rtol=1e-12, atol=1e-15)
    valid = (labels != 255)[:, None]
    assert stats.count.sum().item() == valid.sum().item()
    total = (means(a).mean * stats.count[:, None]).sum(dim=0)
    torch.testing.assert_close(total, (a * valid).sum(dim=(0, 2, 3)), rtol=1e-12, atol=1e-12)
    combined = 2 * means(a).mean - 0.5 * means(b).mean
    torch.testing.assert_close(means(2 * a - 0.5 * b).mean, combined, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_class_mean(backend: str) -> None:
    labels = torch.tensor([0, 2, 2, 255, 2])
    features = normal(0, (5, 3)).requires_grad_()
    mean = class_prototypes(features, labels, 3, backend=backend).mean
    for c, expected in [(0, [1, 0, 0, 0, 0]), (1, [0] * 5), (2, [0, 1 / 3, 1 / 3, 0, 1 / 3])]:
        (gradient,) = torch.autograd.grad(mean[c, 1], features, retain_graph=True)
        assert gradient[:, 1].tolist() == pytest.approx(expected)
        assert (gradient[:, [0, 2]] == 0).all()
