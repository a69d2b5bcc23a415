"""CONFETI: contrast, spread and prototypes are the released ones; its switches work."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import protocontrast as pc
from reference.method import Step
from reference.methods.confeti import CONFETI, ActivationPrototypes, strongest
from reference.methods.dacs import Mixture
from reference.run.ranks import Ranks
from tests.reference.given_outputs import assert_same
from tests.reference.method_steps import given, step_of, toy
from tests.strategies import label_map, normal


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def case(index: int = 0, steps: int = 4, **options: Any) -> tuple[CONFETI, Step]:
    """A method whose translator changes images already, and a step."""
    network = toy()
    method = CONFETI(given(network), **options)
    with torch.no_grad():
        for parameter in method.translate.decoder.parameters():
            parameter.add_(0.05)
    return method, step_of(network, index, steps=steps)


def known(**options: Any) -> CONFETI:
    """In float64, of 19 classes, with unit prototypes of all but the last."""
    method = CONFETI(given(toy(19, dim=64)), **options)
    method.heads.double()
    bank = method.heads.bank
    bank.prototypes[:18] = F.normalize(normal(1, (18, 64)), dim=1).float()
    bank.present[:18] = True
    return method


def released_terms(method: CONFETI, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """0.5 CE(v P^T / 0.1) and 2 sum_c log softmax(mean v P^T / 0.1) / (19 ln 19), rows unseen 0."""
    units = F.normalize(method.heads.project(features), dim=1).permute(0, 2, 3, 1).reshape(-1, 64)
    valid = labels.flatten() != 255
    table = method.heads.bank.prototypes.double()
    near = F.cross_entropy(units[valid] @ table.t() / 0.1, labels.flatten()[valid])
    even = (units[valid].mean(dim=0) @ table.t() / 0.1).log_softmax(dim=0).sum()
    return 0.5 * near, 2 * even / (19 * math.log(19))


def test_contrast_and_spread_are_the_released_ones_of_a_sample_and_of_every_cell() -> None:
    method = known(zero_rows=True)
    features, labels = normal(2, (2, 64, 6, 8)).requires_grad_(), label_map(3, (2, 6, 8), 19)
    assert (labels == 255).any() and (labels == 18).any()
    leaves = (features, *method.heads.project.parameters())
    pairs = method.contrast(features, labels, random()), released_terms(method, features, labels)
    for ours, theirs in zip(*pairs, strict=True):
        assert_same(ours, theirs, leaves, 1e-5, 1e-9)

    features, labels = normal(2, (1, 64, 50, 60)), label_map(3, (1, 50, 60), 19)
    ours = method.contrast(features, labels, random())
    near, even = released_terms(method, features, labels)
    torch.testing.assert_close(ours[1], even, rtol=1e-6, atol=0)
    assert (ours[0] - near).abs() > 1e-4
    drawn = pc.sample_pixels(labels, 2048, generator=random()).positions
    sampled = torch.full_like(labels.flatten(), 255)
    sampled[drawn] = labels.flatten()[drawn]
    near, _ = released_terms(method, features, sampled.view_as(labels))
    torch.testing.assert_close(ours[0], near, rtol=1e-6, atol=0)


def test_a_class_not_seen_is_left_out_and_the_spread_turns_round() -> None:
    features, labels = normal(2, (2, 64, 6, 8)), label_map(3, (2, 6, 8), 18, "full")
    with_zero, without, turned = (
        known(**options).contrast(features, labels, random())
        for options in ({"zero_rows": True}, {}, {"toward": "uniform"})
    )
    assert without[0] < with_zero[0]
    assert torch.equal(turned, without * torch.tensor([1, -1]))


def test_the_strongest_cells_by_loops_and_of_equal_ones_the_first() -> None:
    scores, labels = normal(0, (2, 3, 8, 9)).abs(), label_map(1, (2, 8, 9), 3, "full")
    labels[0, :1] = 255
    ours, first = strongest(scores, labels), strongest(torch.ones_like(scores), labels)
    assert not ours[labels == 255].any()
    for c in range(3):
        own = scores[:, c][labels == c]
        assert len(own) > 32
        expected = torch.where(own >= own.sort(descending=True).values[31], own, 0)
        assert torch.equal(ours[labels == c], expected)
        assert first[labels == c].tolist() == [1.0] * 32 + [0.0] * (len(own) - 32)


@pytest.mark.parametrize("ramp", [True, False])
def test_prototypes_by_loops(ramp: bool) -> None:
    """Of the teacher's heads: copied at first, then blended, at unit length before and after."""
    rows = ActivationPrototypes(5, 8, ramp=ramp)
    table, shown = torch.zeros(5, 64), [False] * 5
    for step in range(3):
        features = normal(step, (2, 8, 6, 8), torch.float32)
        labels = label_map(step, (2, 6, 8), 4 - step, "full")
        rows.follow()
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
            blend = momentum * table[c] + (1 - momentum) * new if shown[c] else new
            table[c], shown[c] = F.normalize(blend, dim=0), True
    torch.testing.assert_close(rows.bank.prototypes, table, rtol=1e-4, atol=1e-6)
    assert rows.bank.present.tolist() == shown


def seen_by(method: CONFETI, step: Step) -> Mixture:
    """What DACS sees of a step whose source images are translated, as they are before training."""
    target = step.target_batch.images
    styled, _ = method.translate(step.source.images, target, step.random(), Ranks())
    return method.mixture(replace(step, source=step.source._replace(images=styled.detach())))


def test_the_warm_up_takes_32_source_cells_and_has_no_contrast() -> None:
    method, step = case()
    done = method(step)
    assert {*done.terms} == {
        "source_cross_entropy", "mixed_cross_entropy", "translation", "similarity", "presence",
    }  # fmt: skip
    mixed = seen_by(method, step)
    y = mixed.mixed_labels.masked_fill(~mixed.from_source, 255)[:, ::4, ::4].flatten()
    shown = [c for c in y.unique().tolist() if c < 255]
    assert method.heads.bank.present.nonzero().flatten().tolist() == shown
    rows = method.heads.project(method.teacher(mixed.mixed_images).features)
    for c in shown:
        first = rows.movedim(1, -1).flatten(0, 2)[(y == c).nonzero()[:32, 0]]
        expected = F.normalize(first.mean(dim=0), dim=0)
        torch.testing.assert_close(method.heads.bank.prototypes[c], expected, rtol=1e-4, atol=1e-5)


def test_source_and_mixed_images_are_translated_ones_and_all_three_are_contrasted() -> None:
    method, step = case(3)
    terms, seen = method(step).terms, seen_by(method, step)
    loss = step.source_loss(seen.source.logits)
    torch.testing.assert_close(terms["source_cross_entropy"], loss, rtol=1e-5, atol=1e-6)
    plain = step.source_loss(step.network(step.source.images).logits)
    assert (loss - plain).abs() > 1e-4
    with torch.no_grad():
        target, rest = step.network(step.target_batch.images).features, step.random()
        expected = [
            share * method.contrast(features, labels[:, ::4, ::4], rest)
            for share, features, labels in (
                (1, seen.source.features, step.source_labels),
                (1, seen.mixed.features, seen.mixed_labels), (seen.share, target, seen.labels),
            )
        ]  # fmt: skip
    pair = torch.stack([terms["contrast"], terms["spread"]])
    torch.testing.assert_close(pair, torch.stack(expected).sum(dim=0), rtol=1e-4, atol=1e-5)


def test_presence_is_of_source_images_and_later_of_mixed_ones_too() -> None:
    for steps in (39, 41):
        method, step = case(1, steps)
        terms, seen = method(step).terms, seen_by(method, step)
        assert "contrast" not in terms
        expected = method.heads.presence(seen.source.features, step.source_labels)
        if steps == 39:  # 1 / 39 of the run is over: more than 2000 of 80 000 steps.
            expected = expected + method.heads.presence(seen.mixed.features, seen.mixed_labels)
        torch.testing.assert_close(terms["presence"], expected, rtol=1e-5, atol=1e-6)


def moved(loss: Tensor, parts: dict[str, list[nn.Module]]) -> set[str]:
    """Names of the parts that the gradient of a loss reaches."""
    leaves = [(name, p) for name, modules in parts.items() for m in modules for p in m.parameters()]
    gradients = torch.autograd.grad(
        loss, [leaf for _, leaf in leaves], retain_graph=True, allow_unused=True
    )
    return {
        name for (name, _), g in zip(leaves, gradients, strict=True) if g is not None and g.any()
    }


def test_every_term_moves_what_the_release_has_it_move() -> None:
    method, step = case()
    method(step)
    terms = method(replace(step, index=3)).terms
    heads, translate = method.heads, method.translate
    parts = {
        "network": [step.network], "translator": [translate.encoder, translate.decoder],
        "patches": [translate.heads], "projection": [heads.project], "match": [heads.match],
        "activation": [heads.activate],
    }  # fmt: skip
    assert {name: moved(loss, parts) for name, loss in terms.items()} == {
        "source_cross_entropy": {"network"}, "mixed_cross_entropy": {"network"},
        "presence": {"network", "activation"}, "contrast": {"network", "projection"},
        "spread": {"network", "projection"}, "translation": {"translator", "patches"},
        "similarity": {"translator", "match"},
    }  # fmt: skip
    taken = {id(parameter) for parameter in method.trained()}
    frozen = [heads.slow_project, heads.slow_activate, method.teacher, translate.discriminator]
    assert not taken & {id(p) for module in frozen for p in module.parameters()}


def test_similarity_is_the_squared_difference_of_the_maps() -> None:
    """The translated side and M have a gradient; the projection and the source have none."""
    rows = known().heads
    table = rows.bank.prototypes.double()
    source, styled = (normal(seed, (2, 64, 3, 4)).requires_grad_() for seed in (0, 1))
    held = rows.project.weight.detach()[:, :, 0, 0]
    projected = torch.einsum("bdhw,ed->behw", styled, held)
    one = torch.einsum("bdhw,cd->bchw", rows.match(projected), table)
    other = torch.einsum("bdhw,ed,ce->bchw", source.detach(), held, table)
    leaves = (styled, *rows.match.parameters(), source, rows.project.weight)
    assert_same(rows.similarity(source, styled), F.mse_loss(one, other), leaves, 1e-5, 1e-9)


def test_presence_teaches_activation_and_features() -> None:
    rows = ActivationPrototypes(19, 8, ramp=True).double()
    features = normal(0, (2, 8, 4, 5)).requires_grad_()
    labels = torch.tensor([[3] * 320, [7] * 320]).reshape(2, 16, 20)
    labels[0, 0, 0], labels[1, 3, 1:9] = 11, 255
    loss = rows.presence(features, labels)
    mean = torch.einsum("bdhw,cd->bc", features, rows.activate.weight[..., 0, 0]) / 20
    shown = torch.zeros(2, 19, dtype=torch.float64)
    shown[0, 3] = shown[0, 11] = shown[1, 7] = 1
    expected = -(shown * mean.sigmoid().log() + (1 - shown) * (-mean).sigmoid().log()).mean()
    assert_same(loss, expected, (features, rows.activate.weight))
