"""CONFETI: contrast, spread and prototypes are the released ones; its switches work."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.methods.activations import ActivationPrototypes, strongest
from reference.methods.confeti import CONFETI
from reference.methods.dacs import Seen, cells
from reference.networks.toy import build_network
from reference.training.losses import cell_labels
from reference.training.method import Start, Step
from tests.reference.test_method_blda import step_of
from tests.reference.test_stages import blocks
from tests.strategies import label_map, normal

SHAPE = (2, 19, 6, 8)
UNIFORM: Literal["uniform"] = "uniform"


def begun(method: CONFETI) -> CONFETI:
    """In float64, with unit prototypes of all classes but the last."""
    network = build_network(seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,))
    method.begin(Start(network, blocks(2), blocks(2).images, seed=0))
    method.heads.double()
    bank = method.heads.bank
    bank.prototypes[:18] = F.normalize(normal(1, (18, 64)), dim=1).float()
    bank.present[:18] = True
    return method


def released_terms(method: CONFETI, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """0.5 CE(v P^T / 0.1) and 2 sum_c log softmax(mean v P^T / 0.1) / (19 ln 19), rows unseen 0."""
    units = F.normalize(method.heads.project(features), dim=1).permute(0, 2, 3, 1).reshape(-1, 64)
    valid = labels.flatten() != 255
    units, kept = units[valid], labels.flatten()[valid]
    table = method.heads.bank.prototypes.double()
    near = F.cross_entropy(units @ table.t() / 0.1, kept)
    even = (units.mean(dim=0) @ table.t() / 0.1).log_softmax(dim=0).sum()
    return 0.5 * near, 2 * even / (19 * math.log(19))


def test_the_contrast_is_of_a_sample_and_the_spread_of_every_labelled_cell() -> None:
    method = begun(CONFETI(64, zero_rows=True))
    features, labels = normal(2, (1, 64, 50, 60)), label_map(3, (1, 50, 60), 19)
    found = method.contrast(features, labels, random())
    whole = released_terms(method, features, labels)
    torch.testing.assert_close(found[1], whole[1], rtol=1e-6, atol=0)
    assert (found[0] - whole[0]).abs() > 1e-4
    flat = labels.flatten()
    drawn = pc.sample_pixels(labels, 2048, generator=random()).positions
    assert len(drawn) == 2048
    kept = torch.full_like(flat, 255)
    kept[drawn] = flat[drawn]
    sampled = released_terms(method, features, kept.view_as(labels))
    torch.testing.assert_close(found[0], sampled[0], rtol=1e-6, atol=0)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_contrast_and_spread_are_the_released_ones() -> None:
    method = begun(CONFETI(64, zero_rows=True))
    features = normal(2, (2, 64, 6, 8)).requires_grad_()
    labels = label_map(3, (2, 6, 8), 19)
    assert (labels == 255).any()
    assert (labels == 18).any()
    found = method.contrast(features, labels, random())
    leaves = (features, *method.heads.project.parameters())
    for ours, theirs in zip(found, released_terms(method, features, labels), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        grads = (torch.autograd.grad(one, leaves, retain_graph=True) for one in (ours, theirs))
        for mine, other in zip(*grads, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-9)


def test_a_class_not_seen_is_left_out_and_the_spread_turns_round() -> None:
    features, labels = normal(2, (2, 64, 6, 8)), label_map(3, (2, 6, 8), 18, "full")
    with_zero = begun(CONFETI(64, zero_rows=True)).contrast(features, labels, random())
    without = begun(CONFETI(64)).contrast(features, labels, random())
    turned = begun(CONFETI(64, toward=UNIFORM)).contrast(features, labels, random())
    assert without[0] < with_zero[0]
    assert turned[0] == without[0]
    assert turned[1] == -without[1]


def test_pixels_are_drawn() -> None:
    method = begun(CONFETI(64))
    features, labels = normal(2, (1, 64, 50, 60)), label_map(3, (1, 50, 60), 18, "full")
    one, again = (method.contrast(features, labels, random()) for _ in range(2))
    other = method.contrast(features, labels, torch.Generator().manual_seed(1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_the_strongest_cells_by_loops() -> None:
    scores, labels = normal(0, (2, 3, 8, 9)).abs(), label_map(1, (2, 8, 9), 3, "full")
    found = strongest(scores, labels)
    for c in range(3):
        own = scores[:, c][labels == c]
        assert len(own) > 32
        expected = torch.where(own >= own.sort(descending=True).values[31], own, 0)
        assert torch.equal(found[labels == c], expected)
        assert (expected > 0).sum() == 32
    labels[0, :2] = 255
    found = strongest(scores, labels)
    assert (found[labels == 255] == 0).all() and (found > 0).sum() == 3 * 32


def test_of_equal_cells_the_first_32_count() -> None:
    labels = label_map(1, (2, 12, 9), 3)
    found = strongest(torch.ones(2, 3, 12, 9), labels).flatten()
    for c in range(3):
        places = (labels.flatten() == c).nonzero()[:, 0]
        assert len(places) > 32
        assert found[places].tolist() == [1.0] * 32 + [0.0] * (len(places) - 32)
    assert not found[labels.flatten() == 255].any()


@pytest.mark.parametrize("ramp", [True, False])
def test_prototypes_by_loops(ramp: bool) -> None:
    """Of the teacher's heads: copied at first, then blended, at unit length before and after."""
    rows = ActivationPrototypes(8, ramp=ramp)
    table, known = torch.zeros(19, 64), [False] * 19
    for step in range(3):
        features = normal(step, (2, 8, 6, 8), torch.float32)
        labels = label_map(step, (2, 6, 8), 4 - step, "full")
        rows.update(features, labels, None, step)
        projected = rows.slow_project(features).movedim(1, -1)
        weight = strongest(rows.slow_activate(features).relu(), labels)
        with torch.no_grad():
            for head in (rows.project, rows.activate):
                head.weight += normal(step + 5, tuple(head.weight.shape), torch.float32)
        momentum = min(1 - 1 / (step + 1), 0.99) if ramp else 0.99
        for c in range(4 - step):
            inside = labels == c
            mean = (weight[inside][:, None] * projected[inside]).sum(dim=0) / weight[inside].sum()
            new = F.normalize(mean.detach(), dim=0)
            blend = momentum * table[c] + (1 - momentum) * new if known[c] else new
            table[c], known[c] = F.normalize(blend, dim=0), True
    torch.testing.assert_close(rows.bank.prototypes, table, rtol=1e-4, atol=1e-6)
    assert rows.bank.present.tolist() == known


def test_the_warm_up_takes_32_source_cells_and_has_no_contrast() -> None:
    method = CONFETI(64)
    step = step_of(method)
    done = method(step)
    assert set(done.losses) == {
        "source_cross_entropy", "mixed_cross_entropy", "translation", "similarity", "presence",
    }  # fmt: skip
    mixed = begun_again(method, step)
    pasted = cells(mixed.from_source)
    y = cell_labels(mixed.mixed_labels).masked_fill(~pasted, 255).flatten()
    shown = [c for c in y.unique().tolist() if c < 255]
    assert method.heads.bank.present.nonzero().flatten().tolist() == shown
    features = method.teacher(mixed.mixed_images).features
    rows = method.heads.project(features).movedim(1, -1).flatten(0, 2)
    for c in shown:
        first = (y == c).nonzero()[:32, 0]
        expected = F.normalize(rows[first].mean(dim=0), dim=0)
        torch.testing.assert_close(method.heads.bank.prototypes[c], expected, rtol=1e-4, atol=1e-5)


def begun_again(method: CONFETI, step: Step) -> Seen:
    """What DACS sees of a step whose source images are translated, as they are before training."""
    styled, _ = method.translate(step.source.images, step.target_batch.images, step.random())
    return method.seen(replace(step, source=replace(step.source, images=styled.detach())))


def test_source_and_mixed_images_are_translated_ones() -> None:
    method = CONFETI(64)
    step = step_of(method)
    with torch.no_grad():
        for parameter in method.translate.decoder.parameters():
            parameter.add_(0.05)
    done, seen = method(step), begun_again(method, step)
    loss = F.cross_entropy(seen.source.logits, step.source_labels, ignore_index=255)
    torch.testing.assert_close(done.losses["source_cross_entropy"], loss, rtol=1e-5, atol=1e-6)
    plain = F.cross_entropy(
        step.network(step.source.images).logits, step.source_labels, ignore_index=255
    )
    assert (loss - plain).abs() > 1e-4
    weight = cells(torch.where(seen.from_source, 1.0, seen.share))
    each = F.cross_entropy(
        seen.mixed.logits, cell_labels(seen.mixed_labels), ignore_index=255, reduction="none"
    )
    torch.testing.assert_close(
        done.losses["mixed_cross_entropy"], (weight * each).mean(), rtol=1e-5, atol=1e-6
    )


def moved(loss: Tensor, parts: dict[str, list[torch.nn.Module]]) -> set[str]:
    """Names of the parts that the gradient of a loss reaches."""
    reached = set()
    for name, modules in parts.items():
        leaves = [leaf for module in modules for leaf in module.parameters()]
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        if any(one is not None and bool(one.any()) for one in found):
            reached.add(name)
    return reached


def test_every_term_moves_what_the_release_has_it_move() -> None:
    method = CONFETI(64)
    step = step_of(method)
    with torch.no_grad():
        for parameter in method.translate.decoder.parameters():
            parameter.add_(0.05)
    method(step)
    losses = method(replace(step, index=3)).losses
    heads, translate = method.heads, method.translate
    parts = {
        "network": [step.network],
        "translator": [translate.encoder, translate.decoder],
        "patches": [translate.heads],
        "projection": [heads.project],
        "match": [heads.match],
        "activation": [heads.activate],
    }
    assert {name: moved(loss, parts) for name, loss in losses.items()} == {
        "source_cross_entropy": {"network"},
        "mixed_cross_entropy": {"network"},
        "presence": {"network", "activation"},
        "contrast": {"network", "projection"},
        "spread": {"network", "projection"},
        "translation": {"translator", "patches"},
        "similarity": {"translator", "match"},
    }
    frozen = [*heads.slow_project.parameters(), *heads.slow_activate.parameters()]
    frozen += [*method.teacher.parameters(), *translate.discriminator.parameters()]
    assert not any(parameter.requires_grad for parameter in frozen)
    assert heads.project.bias is None and heads.activate.bias is None


def test_the_contrast_is_of_translated_mixed_and_target_images() -> None:
    method = CONFETI(64)
    step = step_of(method)
    step = replace(step, index=3)
    done, seen = method(step), begun_again(method, step)
    with torch.no_grad():
        target = step.network(step.target_batch.images).features
        rest = step.random()
        expected = method.contrast(seen.source.features, step.source_labels, rest)
        y = cell_labels(seen.mixed_labels)
        expected = expected + method.contrast(seen.mixed.features, y, rest)
        expected = expected + seen.share * method.contrast(target, seen.labels, rest)
    pair = torch.stack([done.losses["contrast"], done.losses["spread"]])
    torch.testing.assert_close(pair, expected, rtol=1e-4, atol=1e-5)


def test_presence_is_of_source_images_and_later_of_mixed_ones_too() -> None:
    for steps in (39, 41):
        method = CONFETI(64)
        step = replace(step_of(method, 1), steps=steps)
        done, seen = method(step), begun_again(method, step)
        assert "contrast" not in done.losses
        expected = method.heads.presence(seen.source.features, step.image_labels)
        if steps == 39:  # 1 / 39 of the run is over: more than 2000 of 80 000 steps.
            expected = expected + method.heads.presence(seen.mixed.features, seen.mixed_labels)
        torch.testing.assert_close(done.losses["presence"], expected, rtol=1e-5, atol=1e-6)


def test_heads_of_the_teacher_follow_slowly() -> None:
    rows = ActivationPrototypes(8, ramp=False)
    features, labels = normal(0, (1, 8, 4, 4), torch.float32), label_map(0, (1, 4, 4), 3, "full")
    rows.slow_project.n_averaged.fill_(500)
    slow = next(rows.slow_project.parameters())
    before = slow.clone()
    with torch.no_grad():
        rows.project.weight += 1.0
    rows.update(features, labels, None, 1)
    torch.testing.assert_close(slow - before, torch.full_like(slow, 0.01), rtol=1e-3, atol=1e-6)
    assert not slow.requires_grad


def test_similarity_is_the_squared_difference_of_the_maps() -> None:
    """The translated side and M have a gradient; the projection and the source have none."""
    method = begun(CONFETI(64))
    rows, table = method.heads, method.heads.bank.prototypes.double()
    source, styled = (normal(seed, (2, 64, 3, 4)).requires_grad_() for seed in (0, 1))
    held = rows.project.weight.detach()[:, :, 0, 0]
    projected = torch.einsum("bdhw,ed->behw", styled, held)
    one = torch.einsum("bdhw,cd->bchw", rows.match(projected), table)
    other = torch.einsum("bdhw,ed,ce->bchw", source.detach(), held, table)
    expected, found = F.mse_loss(one, other), rows.similarity(source, styled)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    leaves = (styled, *rows.match.parameters())
    pairs = (torch.autograd.grad(each, leaves, retain_graph=True) for each in (found, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    still = torch.autograd.grad(found, (source, rows.project.weight), allow_unused=True)
    assert still == (None, None)


def test_presence_teaches_activation_and_features() -> None:
    rows = ActivationPrototypes(8, ramp=True).double()
    features = normal(0, (2, 8, 4, 5)).requires_grad_()
    labels = torch.tensor([[3] * 320, [7] * 320]).reshape(2, 16, 20)
    labels[0, 0, 0], labels[1, 3, 1:9] = 11, 255
    loss = rows.presence(features, labels)
    mean = torch.einsum("bdhw,cd->bc", features, rows.activate.weight[..., 0, 0]) / 20
    shown = torch.zeros(2, 19, dtype=torch.float64)
    shown[0, 3] = shown[0, 11] = shown[1, 7] = 1
    expected = -(shown * mean.sigmoid().log() + (1 - shown) * (-mean).sigmoid().log()).mean()
    torch.testing.assert_close(loss, expected)
    leaves = (features, rows.activate.weight)
    pairs = (torch.autograd.grad(each, leaves) for each in (loss, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs)
