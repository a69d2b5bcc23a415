"""BLDA's losses, tables and alignment against its release, restated with plain tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import protocontrast as pc
from reference.method import Step
from reference.methods.blda import BLDA
from reference.methods.dacs import DACS, Mixture
from tests.reference.method_steps import given, step_of, toy
from tests.strategies import normal

PARTS = ("weight", "mean", "variance")
SIZE = (32, 48)


def normal_cdf(value: Tensor) -> Tensor:
    """The five-term polynomial of Abramowitz and Stegun, 26.2.17."""
    t = 1 / (1 + 0.2316419 * value.abs())
    powers = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
    tail = sum(a * t ** (i + 1) for i, a in enumerate(powers))
    tail = tail * (-value.square() / 2).exp() / (2 * torch.pi) ** 0.5
    return torch.where(value >= 0, 1 - tail, tail)


def mixture_cdf(value: Tensor, weight: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (weight * normal_cdf((value[..., None] - mean) / variance.sqrt())).sum(dim=-1)


def released_delta(balance: pc.LogitBalance, logits: Tensor, labels: Tensor, which: int) -> Tensor:
    """Tables gathered for every pixel, class 0's where ignored; the inverse from 1000 points."""
    tables = [getattr(balance, part)[which].double() for part in PARTS]
    own = torch.where(labels == 255, 0, labels)
    share = mixture_cdf(logits, *(table[own] for table in tables)).clamp(0.01, 0.99)
    points = torch.linspace(-20, 20, 100001, dtype=torch.float64)
    moved = torch.empty_like(logits)
    for kind in (0, 1):
        anchor = [getattr(balance, f"anchor_{part}")[kind].double() for part in PARTS]
        at = np.linspace(0.01, 0.99, 1000)
        inverse = np.interp(at, mixture_cdf(points, *anchor).numpy(), points.numpy())
        pick = (torch.arange(logits.shape[1]) != own[:, None]).long() == kind
        moved[pick] = torch.from_numpy(np.interp(share[pick].numpy(), at, inverse))
    # A class that has no table yet is left as it is, and so is an ignored pixel.
    ready = (balance.count[which, own] > 0) & (labels != 255)
    return torch.where(ready[:, None], moved - logits, 0)


def case(share: float, **options: float) -> tuple[BLDA, Step, Mixture]:
    """A method, a step, and what DACS has seen of it, of that share of sure pixels."""
    network = toy()
    method = BLDA(given(network), **{"pixels": 4, **options})
    step = step_of(network, 0, size=SIZE)
    return method, step, replace(DACS.mixture(method, step), share=torch.tensor(share))


def balanced(method: BLDA, step: Step, plain: Mixture) -> Mixture:
    """What BLDA makes of what DACS has seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DACS, "mixture", lambda self, step: plain)
        return method.mixture(step)


def on_grid(step: Step, plain: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Labels of the source and of mixed images, and which cells are pasted."""
    source, mixed = (labels[:, ::4, ::4] for labels in (step.source_labels, plain.mixed_labels))
    return source, mixed, plain.from_source[:, ::4, ::4]


def test_target_pixels_fit_the_targets_table_and_pasted_ones_read_the_sources() -> None:
    method, step, plain = case(0.5)
    leaf = plain.mixed.logits.detach().clone().requires_grad_()
    plain = replace(plain, mixed=plain.mixed._replace(logits=leaf))
    seen = balanced(method, step, plain)
    source, y, pasted = on_grid(step, plain)
    assert pasted.any() and not pasted.all()
    by_hand = pc.LogitBalance(3, 5, ramp=1, pixels=4)
    by_hand.update(plain.source.logits, source)
    before = by_hand.mean[0].clone()
    by_hand.update(leaf, torch.where(pasted, 255, y), domain="target")
    for name in PARTS:
        assert torch.equal(getattr(method.balance, name), getattr(by_hand, name)), name
    assert torch.equal(method.balance.mean[0], before)
    assert (by_hand.count.sum(dim=1) > 0).all()
    rows, flat = leaf.detach().movedim(1, -1).flatten(0, 2).double(), y.flatten()
    deltas = (released_delta(by_hand, rows, flat, which) for which in (0, 1))
    delta = torch.where(pasted.flatten()[:, None], *deltas)
    delta = delta.unflatten(0, y.shape).movedim(-1, 1)
    torch.testing.assert_close(seen.mixed.logits.double(), leaf - 0.1 * delta, rtol=0, atol=2e-3)
    for own in (pasted, ~pasted):
        assert (seen.mixed.logits - leaf).abs().amax(dim=1)[own].max() > 1e-3
    # The gradient passes as through the identity.
    (gradient,) = torch.autograd.grad(seen.mixed.logits.sum(), leaf)
    assert torch.equal(gradient, torch.ones_like(leaf))


def test_pixels_of_no_weight_fit_no_table_and_the_momentum_rises_as_released() -> None:
    method, step, plain = case(0.0)
    seen = balanced(method, step, plain)
    assert not method.balance.count[1].any()
    same = (seen.mixed.logits == plain.mixed.logits).all(dim=1)
    pasted = on_grid(step, plain)[2]
    assert same[~pasted].all() and not same[pasted].all()
    for steps, ramp in ((40000, 1500), (600, 22), (4, 1)):
        method.mixture(replace(step, steps=steps))
        assert method.balance.ramp == ramp


def test_at_test_time_every_class_is_scored_as_if_it_were_the_label() -> None:
    method, step, plain = case(0.5)
    balanced(method, step, plain)
    method.balance.reset()
    method.balance.update(plain.source.logits, on_grid(step, plain)[0])
    for c in (0, 2):
        rows = normal(c, (40, 3), torch.float32) + torch.linspace(-4, 4, 3)
        method.balance.update(rows, torch.full((40,), c), domain="target")
    images = step.target_batch.images
    network, ours = step.network(images), method.at_test(step.network)(images)
    assert torch.equal(ours.features, network.features)
    rows = network.logits.movedim(1, -1).flatten(0, 2).detach().double()
    for c in range(3):
        delta = released_delta(method.balance, rows, torch.full((len(rows),), c), 1)
        score = (rows + 0.2 * delta).softmax(dim=1)[:, c]
        found = ours.logits[:, c].flatten().exp().double()
        torch.testing.assert_close(found, score, rtol=0, atol=1e-4)
        # No pixel of class 1 was seen.
        assert ((found - rows.softmax(dim=1)[:, c]).abs().max() > 1e-3) == (c != 1)


def test_strength_zero_is_dacs_and_without_a_test_strength_nothing_is_added() -> None:
    network = toy()
    step, losses = step_of(network, 0), []
    for method in (
        BLDA(given(network), strength=0.0, test_strength=0.0, pixels=8), DACS(given(network)),
        BLDA(given(network), pixels=8), BLDA(given(network), pixels=1000),
    ):  # fmt: skip
        losses.append(method(step).terms)
        assert (method.at_test(network) is network) == (getattr(method, "test_strength", 0) == 0)
    assert losses[0] == losses[1]
    assert all(losses[2][name] != value for name, value in losses[1].items())
    # Classes of few pixels take no part.
    assert losses[3] == losses[1]
