"""Class statistics and contrast with class distributions, beside what one would write."""

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import protocontrast as pc

NUM_CLASSES = 19
TEMPERATURE = 0.5
"""Not the published 100, at which all losses are alike and an error would not show."""
SIZES = {"sepico_r101": (2, 512, 80, 80), "sepico_b5": (2, 256, 160, 160)}
ROUNDS = 5

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
Function = Callable[..., tuple[Tensor, ...]]


def library_contrast(*given: Tensor) -> tuple[Tensor, ...]:
    """Loss and gradient of the features."""
    loss = pc.distribution_contrast(*given, temperature=TEMPERATURE)
    return loss, *torch.autograd.grad(loss, given[0])


def eager_contrast(
    features: Tensor, labels: Tensor, means: Tensor, spread: Tensor
) -> tuple[Tensor, ...]:
    """The same from unit features and their squares."""
    unit = F.normalize(features, dim=1)
    scores = torch.einsum("bdhw,cd->bchw", unit, means) / TEMPERATURE
    bonus = torch.einsum("bdhw,cd->bchw", unit.square(), spread) / (2 * TEMPERATURE**2)
    total = torch.logsumexp(scores + bonus, dim=1)
    valid = labels != 255
    own = scores.gather(1, torch.where(valid, labels, 0)[:, None])[:, 0]
    loss = torch.where(valid, total - own, 0).sum() / valid.sum()
    return loss, *torch.autograd.grad(loss, features)


def library_statistics(features: Tensor, labels: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    """Mean and variance of unit features."""
    stats = pc.class_statistics(features.detach(), labels, NUM_CLASSES, normalize=True)
    return stats.mean, stats.variance


def one_hot_statistics(features: Tensor, labels: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    """The same by products with one-hot labels, the variance around the mean."""
    unit = F.normalize(features.detach(), dim=1).flatten(2)
    member = F.one_hot(torch.where(labels == 255, NUM_CLASSES, labels), NUM_CLASSES + 1)
    member = member[..., :-1].flatten(1, 2).to(unit.dtype)
    count = member.sum(dim=(0, 1)).clamp_min(1)[:, None]
    mean = torch.einsum("bpc,bdp->cd", member, unit) / count
    gap = unit - torch.einsum("bpc,cd->bdp", member, mean)
    return mean, torch.einsum("bpc,bdp->cd", member, gap.square()) / count


FUNCTIONS: dict[str, dict[str, Function]] = {
    "distribution_contrast": {"protocontrast": library_contrast, "eager": eager_contrast},
    "class_statistics": {"protocontrast": library_statistics, "one-hot": one_hot_statistics},
}
CALLS = [
    pytest.param(
        operator,
        contender,
        size,
        id=f"{operator}, {size}, {contender}",
        marks=pytest.mark.benchmark(group=f"{operator}, {size}", timer=time.thread_time),
    )
    for operator, contenders in FUNCTIONS.items()
    for size in SIZES
    for contender in contenders
]


def inputs_of(size: str, dtype: torch.dtype) -> Inputs:
    """Features that require grad, labels, means and variances; the same numbers in any dtype."""
    random = torch.Generator().manual_seed(0)
    images, channels, height, width = SIZES[size]
    features = torch.randn(images, channels, height, width, generator=random)
    labels = torch.randint(NUM_CLASSES, (images, height, width), generator=random)
    labels[torch.rand(labels.shape, generator=random) < 0.3] = 255
    means = torch.randn(NUM_CLASSES, channels, generator=random) / channels**0.5
    spread = torch.rand(NUM_CLASSES, channels, generator=random) / channels
    return features.to(dtype).requires_grad_(), labels, means.to(dtype), spread.to(dtype)


@pytest.mark.parametrize(("operator", "contender", "size"), CALLS)
def test_class_distributions(
    benchmark: BenchmarkFixture, operator: str, contender: str, size: str, one_thread: None
) -> None:
    function = FUNCTIONS[operator][contender]
    truth = list(FUNCTIONS[operator].values())[-1](*inputs_of(size, torch.float64))
    given = inputs_of(size, torch.float32)
    for found, exact in zip(function(*given), truth, strict=True):
        error = (found.double() - exact).abs().max()
        assert error <= 1e-5 * exact.abs().max()
    benchmark.pedantic(function, given, rounds=ROUNDS)
