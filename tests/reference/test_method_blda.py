"""BLDA: its loss is the released one, its tables follow the right logits, its switches work."""

from __future__ import annotations

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
from reference.methods.dacs import DACS
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
    balance = pc.LogitBalance(3, 5, pixels=30)
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


def test_tables_follow_source_and_mixed_logits() -> None:
    method, base = BLDA(pixels=8), DACS()
    step = step_of(method)
    plain = base.seen(step_of(base))
    seen = method.seen(step)
    by_hand = pc.LogitBalance(19, 5, pixels=8)
    mixed_labels = cell_labels(seen.mixed_labels)
    by_hand.update(plain.source.logits, step.source_labels, domain="source")
    source = by_hand(plain.source.logits, step.source_labels, domain="source")
    by_hand.update(plain.mixed.logits, mixed_labels, domain="target")
    mixed = by_hand(plain.mixed.logits, mixed_labels, domain="target")
    assert torch.equal(seen.source.logits, source)
    assert torch.equal(seen.mixed.logits, mixed)
    for balanced, before in ((source, plain.source.logits), (mixed, plain.mixed.logits)):
        assert (balanced - before).abs().max() > 1e-3
    assert (by_hand.count.sum(dim=1) > 0).all()


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
