"""Bi-Mix's losses against the release's formulas, its switch, and what moves what."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.data.classes import IGNORE, NUM_CLASSES
from reference.data.transforms import batch, matching, to_float
from reference.methods.bi_mix import BiMix
from reference.methods.discriminators import Discriminators
from reference.methods.relighting import Relighting, relighting_loss
from reference.methods.static_classes import PASTED, STATIC, fused_labels, static_focal_loss
from reference.networks.toy import SegmentationNetwork, build_network
from reference.training.config import Adaptation
from reference.training.losses import cell_labels
from reference.training.method import Start, Step
from reference.training.stages import adapt
from tests.reference.test_stages import blocks

BRIEF = Adaptation(steps=3, rounds=1, source_batch=2, target_batch=2)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def tiny_network() -> SegmentationNetwork:
    return build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))


def started(method: BiMix) -> tuple[SegmentationNetwork, Step]:
    network, source, night = tiny_network(), blocks(6), blocks(5, shade=0.3, seed=1).images
    day = blocks(5, shade=0.9, seed=2).images
    method.begin(Start(network, source, night, 0, day))
    target = ArrayDomain(night, None, ("",) * 5)
    drawn = batch(source, 0, 1, 2), batch(target, 0, 1, 2, stream=1)
    step = Step(
        network, *drawn, index=1, steps=4, round_index=0, starts_round=False, seed=0,
        full_resolution=False, target_images=night,
    )  # fmt: skip
    return network, step


def gradients(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    leaf = at.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def test_labels_are_fused_pixel_by_pixel_as_released() -> None:
    day, night = (random(2, NUM_CLASSES, 3, 5, seed=s).mul(3).softmax(dim=1) for s in (0, 1))
    weight = random(NUM_CLASSES, seed=2).abs() + 0.5
    fused = fused_labels(day, night, weight)
    for b in range(2):
        for i in range(3):
            for j in range(5):
                scores = []
                for c in range(NUM_CLASSES):
                    d, n = float(day[b, c, i, j]), float(night[b, c, i, j])
                    trust = (0.8 if d > 0.4 else 0.2) if c < 11 else 0.0
                    scores.append(float(weight[c]) * (trust * d + (1 - trust) * n))
                assert int(fused[b, i, j]) == scores.index(max(scores))


def naive_focal(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    share = torch.softmax(logits[:, :11], dim=1)
    terms = []
    _, rows, columns = labels.shape
    for b, i, j in (labels < 11).nonzero().tolist():
        near = {
            int(labels[b, r, c])
            for r in range(max(i - 1, 0), min(i + 2, rows))
            for c in range(max(j - 1, 0), min(j + 2, columns))
        }
        right = torch.stack([weight[c] * share[b, c, i, j] for c in sorted(near) if c < 11]).max()
        right = right.clamp(1e-7, 1 - 1e-7)
        terms.append(-(1 - right) * right.log())
    return torch.stack(terms).mean()


def test_the_focal_loss_is_the_released_one_in_value_and_gradient() -> None:
    logits = 2 * random(2, NUM_CLASSES, 4, 6)
    labels = torch.randint(NUM_CLASSES, (2, 4, 6), generator=torch.Generator().manual_seed(3))
    labels[0, 0, :3] = IGNORE
    weight = random(NUM_CLASSES, seed=2).abs() * 0.2 + 0.8
    ours = gradients(lambda leaf: static_focal_loss(leaf, labels, weight), logits)
    naive = gradients(lambda leaf: naive_focal(leaf, labels, weight), logits)
    torch.testing.assert_close(ours, naive, rtol=1e-10, atol=1e-12)


def test_no_static_label_is_no_loss() -> None:
    labels = torch.full((1, 4, 6), IGNORE)
    labels[0, 0, 0] = STATIC
    value, gradient = gradients(
        lambda leaf: static_focal_loss(leaf, labels, torch.ones(NUM_CLASSES)),
        random(1, NUM_CLASSES, 4, 6),
    )
    assert value == 0 and (gradient == 0).all()


def naive_relighting(images: Tensor, residual: Tensor, light: Tensor) -> Tensor:
    """Pixel by pixel on the coarse grid, as DANNet released it for whole images."""

    def quarter(maps: Tensor) -> Tensor:
        return maps.unflatten(-2, (-1, 4)).unflatten(-1, (-1, 4)).mean(dim=(-3, -1))

    x, r = quarter(images), quarter(residual)
    y = x + r
    rows, columns = x.shape[-2:]
    down = sum((r[:, i + 1] - r[:, i]).square().sum() for i in range(rows - 1))
    across = sum((r[..., j + 1] - r[..., j]).square().sum() for j in range(columns - 1))
    variation = 2 * (down / ((rows - 1) * columns) + across / (rows * (columns - 1))) / 16
    apart = []

    def around(place: int, length: int) -> list[int]:
        """Three places in a row; what would lie outside is mirrored at the border."""
        near = [abs(place + step) for step in (-1, 0, 1)]
        return [min(one, 2 * (length - 1) - one) for one in near]

    for i in range(rows):
        for j in range(columns):
            for c in range(3):
                window = torch.tensor(around(i, rows))[:, None], torch.tensor(around(j, columns))
                a, b = x[c][window], y[c][window]
                spread = a.var(unbiased=False) + b.var(unbiased=False)
                both = ((a - a.mean()) * (b - b.mean())).mean()
                top = (2 * a.mean() * b.mean() + 1e-4) * (2 * both + 9e-4)
                bottom = (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (spread + 9e-4)
                apart.append(((1 - top / bottom) / 2).clamp(0, 1))
    grey = y.mean(dim=0)
    patches = [
        (grey[i : i + 2, j : j + 2].mean() - light).square()
        for i in range(0, rows, 2)
        for j in range(0, columns, 2)
    ]
    return 10 * variation + torch.stack(apart).mean() + torch.stack(patches).mean()


def test_the_relighting_loss_is_dannets_in_value_and_gradient() -> None:
    images = random(2, 3, 16, 24).sigmoid()
    residual, light = 0.1 * random(2, 3, 16, 24, seed=1), torch.tensor(0.2, dtype=torch.float64)
    ours = gradients(lambda leaf: relighting_loss(images, leaf, light).sum(), residual)
    naive = gradients(
        lambda leaf: torch.stack(
            [naive_relighting(x, r, light) for x, r in zip(images, leaf, strict=True)]
        ).sum(),
        residual,
    )
    torch.testing.assert_close(ours, naive, rtol=1e-9, atol=1e-12)


def test_relighting_keeps_images_in_range_and_can_darken_and_brighten() -> None:
    images = random(1, 3, 16, 16).sigmoid().float()
    relighting = Relighting(0)
    for bias, sign in ((3.0, -1), (-3.0, 1)):
        convolution = relighting.curves[4]
        assert isinstance(convolution, torch.nn.Conv2d) and convolution.bias is not None
        torch.nn.init.constant_(convolution.bias, bias)
        residual = relighting(images)
        assert (sign * residual > 0).all()
        assert (images + residual).min() >= 0 and (images + residual).max() <= 1


def test_discriminators_learn_what_the_network_is_paid_to_hide() -> None:
    discriminators = Discriminators(0, 2)
    source = random(4, NUM_CLASSES, 8, 8).softmax(dim=1).float()
    others = [(3 * random(4, NUM_CLASSES, 8, 8, seed=s)).softmax(dim=1).float() for s in (1, 2)]

    def wrong() -> Tensor:
        pairs = zip(discriminators.each, others, strict=True)
        each = [(j(source).square() + (j(p) - 1).square()).mean() / 2 for j, p in pairs]
        return torch.stack(each)

    pairs = zip(discriminators.each, others, strict=True)
    hidden = torch.stack([judge(shown).square().mean() for judge, shown in pairs]).sum()
    torch.testing.assert_close(discriminators(others), hidden)
    before = wrong()
    for _ in range(30):
        discriminators.learn(source, others, 0.0)
    assert (wrong() < before - 0.01).all()
    frozen = [parameter.clone() for parameter in discriminators.parameters()]
    discriminators.learn(source, others, 1.0)
    assert all(map(torch.equal, frozen, discriminators.parameters()))


def test_every_term_of_a_step_is_the_formula_of_its_name() -> None:
    method = BiMix()
    network, step = started(method)
    losses = method(step).losses
    source, night = step.source.images, step.target_batch.images
    day = to_float(matching(method.day_images, step.target_batch))
    weight = pc.frequency_weights(torch.bincount(blocks(6).labels.flatten(), minlength=NUM_CLASSES))
    relit = {name: method.relighting(x) for name, x in (("s", source), ("d", day), ("n", night))}
    logits = {
        name: network(x + relit[name]).logits
        for name, x in (("s", source), ("d", day), ("n", night))
    }
    sure = {name: each.softmax(dim=1) for name, each in logits.items()}
    labels = fused_labels(sure["d"], sure["n"], weight)
    mix = pc.class_mix(
        source, step.image_labels, night, labels.repeat_interleave(4, 1).repeat_interleave(4, 2),
        num_classes=NUM_CLASSES, generator=step.random(),
    )  # fmt: skip
    share = (sure["n"].amax(dim=1) >= 0.968).float().mean()
    each = F.cross_entropy(network(mix.images).logits, cell_labels(mix.labels), reduction="none")
    trust = torch.where(cell_labels(mix.mask.long()).bool(), 1.0, share)
    lit = {
        name: relighting_loss(x, relit[name], night.mean()).mean()
        for name, x in (("s", source), ("d", day), ("n", night))
    }
    by_day = network(day).logits.argmax(dim=1)
    assert not torch.equal(by_day > 11, sure["d"].argmax(dim=1) > 11)
    pasted = by_day.gt(11).repeat_interleave(4, 1).repeat_interleave(4, 2)
    moved = method.relighting(torch.where(pasted[:, None], day, night)) - relit["d"]
    judges = zip(method.discriminators.each, (sure["d"], sure["n"]), strict=True)
    expected = {
        "source_cross_entropy": F.cross_entropy(logits["s"], step.source_labels, weight=weight),
        "relighting": lit["s"] + 0.01 * (lit["d"] + lit["n"]),
        "static_focal": static_focal_loss(logits["n"], labels, weight),
        "adversarial": 0.01 * sum(judge(p).square().mean() for judge, p in judges),
        "mixed_cross_entropy": 0.001 * (trust * each).mean(),
        "day_to_night": 0.001 * moved.abs().mean(),
    }
    assert list(losses) == list(expected)
    torch.testing.assert_close(losses, expected, rtol=2e-4, atol=1e-7)


def test_the_switch_leaves_things_of_the_night_out_of_the_mix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []

    def things(day: Tensor, night: Tensor, weight: Tensor) -> Tensor:
        labels = torch.zeros(night.shape[0], *night.shape[2:], dtype=torch.long)
        labels[..., 1:] = 13
        return labels

    def spy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        seen.append(labels)
        return logits.sum()

    monkeypatch.setattr("reference.methods.bi_mix.fused_labels", things)
    monkeypatch.setattr("reference.methods.bi_mix.weighted_cross_entropy", spy)
    for static_mix in (False, True):
        method = BiMix(static_mix=static_mix)
        method(started(method)[1])
    published, released = seen
    left_out = released == IGNORE
    assert left_out.any() and (published[left_out] == 13).all()
    assert torch.equal(published[~left_out], released[~left_out])


def test_the_loop_moves_relighting_and_the_method_its_discriminators() -> None:
    method = BiMix()
    network, step = started(method)
    moved = {id(parameter) for parameter in method.trained()}
    assert moved == {id(parameter) for parameter in method.relighting.parameters()}
    before = [parameter.clone() for parameter in method.discriminators.parameters()]
    torch.stack(list(method(step).losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in method.relighting.parameters())
    assert all(map(torch.equal, before, method.discriminators.parameters()))
    method.after(network)
    assert not any(map(torch.equal, before, method.discriminators.parameters()))


def test_the_trained_network_relights_what_it_sees() -> None:
    method, start = BiMix(), tiny_network()
    day, night = blocks(5, shade=0.9, seed=2).images, blocks(5, shade=0.3, seed=1).images
    trained = adapt(
        start, blocks(6), night, BRIEF, seed=0, method=method, day_images=day, run="bi_mix"
    )
    plain = tiny_network()
    plain.load_state_dict(trained.network.state_dict())
    images = to_float(night)
    with torch.no_grad():
        relit = plain(images + method.relighting(images)).logits
        assert torch.equal(trained.network(images).logits, relit)
        assert not torch.equal(plain(images).logits, relit)
    assert PASTED.tolist() == [label > 11 for label in range(NUM_CLASSES)]


def test_without_day_images_it_does_not_start() -> None:
    sentence = "BiMix: expected day images, got None. Hint: take the target night."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        BiMix().begin(Start(tiny_network(), blocks(6), blocks(5).images, 0))
