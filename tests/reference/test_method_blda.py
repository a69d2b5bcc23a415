"""BLDA: its loss is the released one, its tables follow the right logits, its switches work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.data.transforms import batch
from reference.methods.blda import BLDA
from reference.methods.dacs import DACS, Seen, cells, weighted_cross_entropy
from reference.networks.toy import build_network
from reference.training.losses import cell_labels
from reference.training.method import Method, Start, Step
from tests.reference.test_stages import blocks
from tests.strategies import label_map, normal

PARTS = ("weight", "mean", "variance")


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
    return torch.where((labels == 255)[:, None], 0, moved - logits)


@pytest.mark.parametrize("domain", ["source", "target"])
def test_the_loss_is_the_released_one(domain: Any) -> None:
    balance = pc.LogitBalance(3, 5, ramp=2, pixels=30)
    for seed in range(4):
        for name in ("source", "target"):
            shift = torch.tensor([4.0, 1.0, -1.0]) - float(name == "target")
            rows, seen = normal(seed, (300, 3)) + shift, label_map(seed, (300,), 3)
            balance.update(rows, seen, domain=name)  # type: ignore[arg-type]
    logits = (normal(9, (200, 3)) * 2).requires_grad_()
    labels = label_map(9, (200,), 3)
    delta = released_delta(balance, logits.detach(), labels, ["source", "target"].index(domain))
    expected = F.cross_entropy(logits - 0.1 * delta, labels, ignore_index=255)
    found = F.cross_entropy(balance(logits, labels, domain=domain), labels, ignore_index=255)
    plain = F.cross_entropy(logits, labels, ignore_index=255)
    assert abs(plain - expected) > 0.02
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def step_of(method: Method, index: int = 0) -> Step:
    """A step on drawn blocks, after the method has begun."""
    source, images = blocks(6), blocks(5, shade=0.6, seed=1).images
    network = build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))
    method.begin(Start(network, source, images, seed=0))
    target = ArrayDomain(images, None, ("",) * len(images))
    return Step(
        network, batch(source, 0, index, 2), batch(target, 0, index, 2, stream=1), index, steps=4,
        round_index=0, starts_round=index == 0, seed=0, full_resolution=False, target_images=images,
    )  # fmt: skip


def mixed_by_release(
    balance: pc.LogitBalance, logits: Tensor, labels: Tensor, pasted: Tensor
) -> Tensor:
    """Both tables gathered for every pixel, then chosen by its origin."""
    rows, flat = logits.movedim(1, -1).flatten(0, 2), labels.flatten()
    deltas = [released_delta(balance, rows.double(), flat, which) for which in (0, 1)]
    delta = torch.where(pasted.flatten()[:, None], *deltas)
    # A class that has no table yet is left as it is.
    ready = balance.count[torch.where(pasted.flatten(), 0, 1), flat.clamp_max(18)] > 0
    delta = torch.where(ready[:, None], delta, 0)
    return (rows - 0.1 * delta).unflatten(0, labels.shape).movedim(-1, 1)


def test_target_pixels_fit_the_targets_table_and_pasted_ones_read_the_sources() -> None:
    method, base = BLDA(pixels=4), DACS()
    step, plain_step = step_of(method), step_of(base)
    plain = base.seen(plain_step)
    plain = replace(plain, share=torch.tensor(0.5))
    seen = seen_with(method, plain, step)
    y, pasted = cell_labels(plain.mixed_labels), cells(plain.from_source)
    assert pasted.any() and not pasted.all()
    by_hand = pc.LogitBalance(19, 5, ramp=1, pixels=4)
    by_hand.update(plain.source.logits, step.source_labels)
    before = by_hand.mean[0].clone()
    by_hand.update(plain.mixed.logits, torch.where(pasted, 255, y), domain="target")
    for name in PARTS:
        assert torch.equal(getattr(method.balance, name), getattr(by_hand, name)), name
    assert torch.equal(method.balance.mean[0], before)
    assert (by_hand.count.sum(dim=1) > 0).all()
    expected = mixed_by_release(by_hand, plain.mixed.logits.detach(), y, pasted)
    torch.testing.assert_close(seen.mixed.logits.double(), expected, rtol=0, atol=2e-3)
    for own in (pasted, ~pasted):
        moved = (seen.mixed.logits - plain.mixed.logits).abs().amax(dim=1)
        assert moved[own].max() > 1e-3


def seen_with(method: BLDA, plain: Seen, step: Step) -> Seen:
    """What BLDA makes of what DACS has seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DACS, "seen", lambda self, step: plain)
        return method.seen(step)


def test_pixels_of_no_weight_fit_no_table() -> None:
    method = BLDA(pixels=4)
    step = step_of(method)
    plain = replace(DACS.seen(method, step), share=torch.tensor(0.0))
    seen = seen_with(method, plain, step)
    assert not method.balance.count[1].any()
    pasted = cells(plain.from_source)[:, None].expand_as(plain.mixed.logits)
    assert torch.equal(seen.mixed.logits[~pasted], plain.mixed.logits[~pasted])
    assert not torch.equal(seen.mixed.logits[pasted], plain.mixed.logits[pasted])


def test_the_gradient_of_the_losses_is_that_of_the_release() -> None:
    """d CE(z - 0.1 delta) / dz at delta without gradient, on both halves of a mixture."""
    method = BLDA(pixels=4)
    step = step_of(method)
    plain = replace(DACS.seen(method, step), share=torch.tensor(0.5))
    leaf = plain.mixed.logits.detach().clone().requires_grad_()
    plain = replace(plain, mixed=plain.mixed._replace(logits=leaf))
    seen = seen_with(method, plain, step)
    y, pasted = cell_labels(plain.mixed_labels), cells(plain.from_source)
    weight = torch.where(pasted, 1.0, 0.5)
    found = weighted_cross_entropy(seen.mixed.logits, y, weight)
    moved = mixed_by_release(method.balance, leaf.detach(), y, pasted) - leaf.detach()
    each = F.cross_entropy(leaf + moved, y, ignore_index=255, reduction="none")
    expected = (weight * each).mean()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    ours, theirs = (torch.autograd.grad(loss, leaf)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_momentum_rises_over_the_released_share_of_the_run() -> None:
    method = BLDA()
    step = step_of(method)
    for steps, ramp in ((40000, 1500), (600, 22), (4, 1)):
        method.seen(replace(step, steps=steps))
        assert method.balance.ramp == ramp


def test_at_test_time_every_class_is_scored_as_if_it_were_the_label() -> None:
    method = BLDA(pixels=8)
    step = step_of(method)
    method(step)
    network, plain = step.network, step.network(step.target_batch.images)
    method.balance.ramp = 1500
    for c in (0, 4):
        rows = normal(c, (40, 19), torch.float32) + torch.linspace(-4, 4, 19)
        method.balance.update(rows, torch.full((40,), c), domain="target")
    method.end(network)
    found = network(step.target_batch.images)
    assert torch.equal(found.features, plain.features)
    rows = plain.logits.movedim(1, -1).flatten(0, 2).detach().double()
    unseen = (method.balance.count[1] == 0).nonzero()[0].item()
    for c in (0, 4, unseen):
        label = torch.full((len(rows),), c)
        delta = released_delta(method.balance, rows, label, 1)
        if c == unseen:
            delta = torch.zeros_like(rows)
        score = (rows + 0.2 * delta).softmax(dim=1)[:, c]
        ours = found.logits[:, c].flatten().exp().double()
        torch.testing.assert_close(ours, score, rtol=0, atol=1e-4)
        changed = (ours - rows.softmax(dim=1)[:, c]).abs().max() > 1e-3
        assert changed == (c != unseen)


def test_without_a_test_strength_the_network_is_left_as_it_is() -> None:
    method = BLDA(test_strength=0, pixels=8)
    step = step_of(method)
    method(step)
    before = step.network(step.target_batch.images)
    method.end(step.network)
    assert torch.equal(step.network(step.target_batch.images).logits, before.logits)


def test_strength_zero_is_dacs() -> None:
    losses = []
    for method in (BLDA(strength=0.0, pixels=8), DACS(), BLDA(pixels=8)):
        losses.append(method(step_of(method)).losses)
    assert losses[0] == losses[1]
    assert all(losses[2][name] != value for name, value in losses[1].items())


def test_classes_of_few_pixels_take_no_part() -> None:
    method = BLDA(pixels=100)
    step = step_of(method)
    method(step)
    assert not method.balance.count.any()
