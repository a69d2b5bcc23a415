"""Bi-Mix's losses against the release's formulas, its switch, and what moves what."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.methods.bi_mix import (
    BiMix,
    Relighting,
    fused_labels,
    relighting_loss,
    static_focal_loss,
)
from reference.run.ranks import Ranks
from tests.reference.given_outputs import assert_same
from tests.reference.method_steps import given, step_of, toy
from tests.strategies import normal

CLASSES = 19
STILL = torch.arange(CLASSES) < 11


def random(*shape: int, seed: int = 0) -> Tensor:
    return normal(seed, shape)


def test_labels_are_fused_pixel_by_pixel_as_released() -> None:
    day, night = (random(2, CLASSES, 3, 5, seed=s).mul(3).softmax(dim=1) for s in (0, 1))
    weight = random(CLASSES, seed=2).abs() + 0.5
    fused = fused_labels(day, night, weight, STILL)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)):
        d, n = day[b, :, i, j], night[b, :, i, j]
        trust = torch.tensor([0.8 if p > 0.4 else 0.2 for p in d[:11]] + [0.0] * 8)
        assert fused[b, i, j] == (weight * (trust * d + (1 - trust) * n)).argmax()


def naive_focal(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    share, terms = torch.softmax(logits[:, :11], dim=1), []
    for b, i, j in (labels < 11).nonzero().tolist():
        near = labels[b, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].unique()
        near = near[near < 11]
        right = (weight[near] * share[b, near, i, j]).max().clamp(1e-7, 1 - 1e-7)
        terms.append(-(1 - right) * right.log())
    return torch.stack(terms).mean()


def test_the_focal_loss_is_the_released_one_in_value_and_gradient() -> None:
    logits = (2 * random(2, CLASSES, 4, 6)).requires_grad_()
    labels = torch.randint(CLASSES, (2, 4, 6), generator=torch.Generator().manual_seed(3))
    labels[0, 0, :3] = IGNORE
    weight = random(CLASSES, seed=2).abs() * 0.2 + 0.8
    ours = static_focal_loss(logits, labels, weight, STILL)
    assert_same(ours, naive_focal(logits, labels, weight), [logits])
    # No label of what stands still, or no class that does, is no loss.
    for known, still in ((labels.clamp(min=11), STILL), (labels, torch.zeros_like(STILL))):
        value = static_focal_loss(logits, known, weight, still)
        assert value == 0 and not torch.autograd.grad(value, logits)[0].any()


def naive_relighting(images: Tensor, residual: Tensor, light: Tensor) -> Tensor:
    """On the coarse grid, window by window, as DANNet released it for whole images."""

    def quarter(maps: Tensor) -> Tensor:
        return maps.unflatten(-2, (-1, 4)).unflatten(-1, (-1, 4)).mean(dim=(-3, -1))

    def windows(maps: Tensor) -> Tensor:
        """Three places by three, mirrored at the border."""
        padded = F.pad(maps, (1, 1, 1, 1), mode="reflect")
        return padded.unfold(-2, 3, 1).unfold(-2, 3, 1).flatten(-2)

    x, r = quarter(images), quarter(residual)
    y = x + r
    rows, columns = x.shape[-2:]
    down, across = ((r.diff(dim=d) ** 2).sum() for d in (-2, -1))
    variation = 2 * (down / ((rows - 1) * columns) + across / (rows * (columns - 1))) / 16
    a, b = windows(x), windows(y)
    mean_a, mean_b = (m.mean(dim=-1, keepdim=True) for m in (a, b))
    spread = a.var(dim=-1, unbiased=False) + b.var(dim=-1, unbiased=False)
    both, products = ((a - mean_a) * (b - mean_b)).mean(dim=-1), (mean_a * mean_b)[..., 0]
    top = (2 * products + 1e-4) * (2 * both + 9e-4)
    bottom = ((mean_a**2 + mean_b**2)[..., 0] + 1e-4) * (spread + 9e-4)
    apart = ((1 - top / bottom) / 2).clamp(0, 1)
    patches = y.mean(dim=0).unfold(-2, 2, 2).unfold(-2, 2, 2).mean(dim=(-2, -1))
    return 10 * variation + apart.mean() + (patches - light).square().mean()


def test_the_relighting_loss_is_dannets_in_value_and_gradient() -> None:
    images = random(2, 3, 16, 24).sigmoid()
    residual, light = 0.1 * random(2, 3, 16, 24, seed=1), torch.tensor(0.2, dtype=torch.float64)
    residual.requires_grad_()
    ours = relighting_loss(images, residual, light)
    each = [naive_relighting(x, r, light) for x, r in zip(images, residual, strict=True)]
    assert_same(ours.sum(), torch.stack(each).sum(), [residual])


def test_relighting_keeps_images_of_any_size_in_range_and_can_darken_and_brighten() -> None:
    images, relighting = random(1, 3, 17, 22).sigmoid().float(), Relighting(0)
    for bias, sign in ((3.0, -1), (-3.0, 1)):
        nn.init.constant_(relighting.curves[4].bias, bias)
        residual = relighting(images)
        assert (sign * residual > 0).all()
        assert (images + residual).min() >= 0 and (images + residual).max() <= 1


def case(**options: Any) -> tuple[BiMix, Any]:
    """A method of six classes, of which 1, 2 and 5 are things and all but 1 of these are pasted."""
    network = toy(6)
    return BiMix(given(network), **options), step_of(network, 1)


def test_what_stands_still_is_told_by_name() -> None:
    method, _ = case()
    assert method.still.tolist() == [True, False, False, True, True, False]
    assert method.pasted.tolist() == [False, False, True, False, False, True]
    strange = BiMix(replace(given(toy(3)), class_names=("road", "tractor", "person")))
    assert strange.still.tolist() == [True, False, False]
    assert strange.pasted.tolist() == [False, True, False]


@pytest.mark.parametrize("partners", [True, False])
def test_every_term_of_a_step_is_the_formula_of_its_name(partners: bool) -> None:
    method, step = case()
    network, source, night = step.network, step.source.images, step.target_batch.images
    day = step.target_batch.partners if partners else night
    if not partners:
        step = replace(step, target=step.target_batch._replace(partners=None))
    terms = method(step).terms
    weight = pc.frequency_weights(torch.arange(6, 0, -1).double()).float()
    images = {"s": source, "d": day, "n": night}
    relit = {name: method.relighting(x) for name, x in images.items()}
    logits = {name: network(x + relit[name]).logits for name, x in images.items()}

    def upsampled(maps: Tensor) -> Tensor:
        return F.interpolate(maps, night.shape[-2:], mode="bilinear")

    sure = {name: upsampled(each).softmax(dim=1) for name, each in logits.items()}
    labels = fused_labels(sure["d"], sure["n"], weight, method.still)
    known = step.source_labels.masked_fill(step.source_labels == IGNORE, 6)
    mix = pc.class_mix(source, known, night, labels, num_classes=7, generator=step.random())
    y = mix.labels.masked_fill(mix.labels == 6, IGNORE)
    mixed = upsampled(network(mix.images).logits)
    each = F.cross_entropy(mixed, y, reduction="none", ignore_index=IGNORE)
    trust = torch.where(mix.mask, 1.0, (sure["n"].amax(dim=1) >= 0.968).float().mean())
    lit = {n: relighting_loss(x, relit[n], night.mean()).mean() for n, x in images.items()}
    pasted = method.pasted[upsampled(network(day).logits).argmax(dim=1)]
    moved = method.relighting(torch.where(pasted[:, None], day, night)) - relit["d"]
    judges = zip(method.discriminators.layers.children(), "dn", strict=True)
    hidden = sum(judge(logits[name].softmax(dim=1)).square().mean() for judge, name in judges)
    expected = {
        "source_cross_entropy": F.cross_entropy(
            upsampled(logits["s"]), step.source_labels, weight=weight, ignore_index=IGNORE
        ),
        "relighting": lit["s"] + 0.01 * (lit["d"] + lit["n"]),
        "static_focal": static_focal_loss(logits["n"], labels[:, ::4, ::4], weight, method.still),
        "adversarial": 0.01 * hidden,
        "mixed_cross_entropy": 0.001 * (trust * each).mean(),
        "day_to_night": 0.001 * moved.abs().mean(),
    }
    assert list(terms) == list(expected)
    torch.testing.assert_close(terms, expected, rtol=2e-4, atol=1e-7)


def test_the_switch_leaves_things_of_the_night_out_of_the_mix(monkeypatch):
    mixed = []

    def spy(step: Any, images: Tensor, labels: Tensor) -> Any:
        mixed.append(labels)
        return pc.ClassMix(images, labels, torch.ones_like(labels, dtype=torch.bool))

    monkeypatch.setattr("reference.methods.bi_mix.half_mix", spy)
    for static_mix in (False, True):
        method, step = case(static_mix=static_mix)
        done = method(step)
    published, released = mixed
    things = ~method.still[published]
    assert torch.equal(published, done.labels) and things.any() and not things.all()
    assert torch.equal(released, published.masked_fill(things, IGNORE))


def test_discriminators_learn_what_the_network_is_paid_to_hide() -> None:
    method, _ = case()
    maps = [(k * random(4, 6, 8, 8, seed=k)).softmax(dim=1).float() for k in (1, 3, 5)]
    judges = [*method.discriminators.layers.children()]

    def wrong() -> Tensor:
        pairs = zip(judges, maps[1:], strict=True)
        return torch.stack([(d(maps[0]) ** 2 + (d(p) - 1) ** 2).mean() / 2 for d, p in pairs])

    before = wrong()
    for _ in range(30):
        method.judge(maps, 0.0)
        method.after(toy(6), Ranks())
    after = wrong()
    assert (after < before - 0.01).all()
    # At the end of the run their learning rate is 0.
    method.judge(maps, 1.0)
    method.after(toy(6), Ranks())
    assert torch.equal(wrong(), after)


def test_the_loop_moves_relighting_and_the_method_its_discriminators() -> None:
    method, step = case()
    judges = [*method.discriminators.parameters()]
    assert {id(p) for p in method.trained()} == {id(p) for p in method.relighting.parameters()}
    before = [parameter.clone() for parameter in judges]
    losses = method(step)
    gathered = [p.grad.clone() for p in judges if p.grad is not None]
    torch.stack(list(losses.terms.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in method.relighting.parameters())
    # The loop's losses leave nothing on the discriminators.
    assert all(torch.equal(g, p.grad) for g, p in zip(gathered, judges, strict=True))
    assert all(map(torch.equal, before, judges))
    method.after(step.network, Ranks())
    assert not any(map(torch.equal, before, judges))


def test_the_network_in_use_relights_what_it_sees() -> None:
    method, step = case()
    images, network = step.target_batch.images, step.network
    with torch.no_grad():
        relit = network(images + method.relighting(images)).logits
        assert torch.equal(method.at_test(network)(images).logits, relit)
        assert not torch.equal(network(images).logits, relit)
