"""BiCL's switches beyond the paper: what each changes, and that runs resume with their bits."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import protocontrast as pc
from reference.bicl import contrast as built
from reference.data.classes import IGNORE
from reference.dynamic_labels import DynamicLabels, filled
from reference.method import Step
from reference.networks.output import Output
from tests.reference.method_steps import NEAR, advance, optimiser_of, saved, step_of, toy
from tests.reference.method_steps import bicl_of as of

CLASSES, SIZE = 3, (40, 56)


def step(network: Any, index: int = 0, static: Tensor | None = None, **more: Any) -> Step:
    made = step_of(network, index, size=SIZE, **more)
    return replace(made, target=made.target_batch._replace(labels=static))


def seen(**more: Any) -> tuple[Any, Step, Tensor, Output, pc.BiCL]:
    """A network and a step of it, what it says of both domains, and a contrast before its first."""
    network = toy()
    made = step(network, **more)
    source, target = network(made.source.images), network(made.target_batch.images)
    bicl = built(NEAR, CLASSES, network.feature_dim)
    return network, made, source.features, target, bicl


def first_means(made: Step, features: Tensor) -> Tensor:
    """The source's class means, which a bank copies; without a bias yet."""
    grid = pc.labels_to_grid(made.source_labels, features.shape[2:])
    return pc.class_prototypes(features, grid, CLASSES, normalize=True).mean


def static_labels(seed: int, block: int) -> Tensor:
    """Labels of blocks of pixels, of which every second one has none."""
    random = torch.Generator().manual_seed(seed)
    small = torch.randint(CLASSES, (2, 1, SIZE[0] // block, SIZE[1] // block), generator=random)
    kept = torch.rand(small.shape, generator=random) < 0.5
    small = small.masked_fill(~kept, IGNORE)
    return F.interpolate(small.float(), SIZE, mode="nearest")[:, 0].long()


@pytest.mark.parametrize("prototypes", ["bank", "batch"])
@pytest.mark.parametrize("block", [0, 4, 8])
def test_labels_made_outside_without_a_condition_are_those_of_the_library(prototypes, block):
    network = toy()
    settings = replace(NEAR, prototypes=prototypes, bias_momentum=0.5, bias_warmup="copy")
    whole = built(settings, CLASSES, network.feature_dim)
    other = copy.deepcopy(whole)
    other.threshold = math.inf
    own = DynamicLabels(settings, CLASSES)
    for index in range(3):
        made = step(network, index, static_labels(index, block) if block else None)
        source, target = network(made.source.images), network(made.target_batch.images)
        inside = whole(
            source.features, made.source_labels, target.features, made.target_batch.labels
        )
        labels = own(other, made, source.features, target)
        outside = other(source.features, made.source_labels, target.features, labels)
        assert inside.coverage > 0.1
        torch.testing.assert_close(outside, inside)
        torch.testing.assert_close(other.state_dict(), whole.state_dict())
    assert len(inside.target_labels.unique()) > 1


def test_a_cell_with_any_static_label_keeps_its_own_and_no_other() -> None:
    static = torch.full((1, 4, 4), IGNORE)
    static[0, 1, 1], static[0, 3, 0] = 2, 1
    dynamic = torch.tensor([[[0, 1], [2, IGNORE]]])
    expected = torch.tensor([
        [IGNORE, IGNORE, 1, 1], [IGNORE, 2, 1, 1],
        [IGNORE, IGNORE, IGNORE, IGNORE], [1, IGNORE, IGNORE, IGNORE],
    ])[None]  # fmt: skip
    assert torch.equal(filled(static, dynamic, CLASSES), expected)


def test_agreed_labels_are_those_that_head_and_prototype_share() -> None:
    _, made, source, target, bicl = seen()
    every = DynamicLabels(NEAR, CLASSES)(bicl, made, source, target)
    head = torch.randint(CLASSES, every.shape, generator=torch.Generator().manual_seed(0))
    said = Output(F.one_hot(head, CLASSES).movedim(-1, 1).float(), target.features)
    agreed = DynamicLabels(replace(NEAR, agree=True), CLASSES)(bicl, made, source, said)
    assert torch.equal(agreed, torch.where(every == head, every, IGNORE))
    assert 0.1 < (agreed != IGNORE).float().mean() < 0.6
    assert of(toy(), agree=True, class_coverage=0.5, dynamic_labels=False).dynamic is None


def test_a_teacher_labels_as_the_network_it_copied_and_then_follows_it_slowly() -> None:
    network = toy().eval()
    made = step(network, static=static_labels(0, 8))
    taught, own = (of(network, teacher=on, agree=True) for on in (True, False))
    first = taught(made)
    assert first.labels is not None and (first.labels != IGNORE).any()
    for name, value in own(made).terms.items():
        assert torch.equal(first.terms[name], value)
    torch.testing.assert_close(
        taught.dynamic.own.state_dict(),
        own.contrast.state_dict(),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.manual_seed(1)))
    again = [method(made).labels for method in (taught, own)]
    assert torch.equal(again[0], first.labels) and not torch.equal(again[1], first.labels)
    for _ in range(2):
        taught.after(network, made.ranks)
    assert not torch.equal(taught(made).labels, first.labels)


def test_banks_and_bias_see_agreed_pixels_alone() -> None:
    network = toy()
    with torch.no_grad():
        # The head says one class everywhere.
        network.head.bias[1] += 1e4
    method = of(network, agree=True, bias_warmup="copy")
    labels = method(step(network)).labels
    assert labels is not None and set(labels.unique().tolist()) == {1, IGNORE}
    held = method.prototypes()
    assert held["target_bank.present"].tolist() == [False, True, False]
    assert held["domain_bias.present"].tolist() == [False, True, False]


def test_every_class_keeps_the_same_share_of_its_nearest_pixels() -> None:
    _, made, source, target, bicl = seen()
    own = DynamicLabels(replace(NEAR, class_coverage=0.3), CLASSES)
    labels = own(bicl, made, source, target)
    means = first_means(made, source)
    logits = pc.prototype_logits(target.features, means, temperature=0.5)
    sure, nearest = logits.softmax(dim=1).max(dim=1)
    for number in range(CLASSES):
        of_class = sure[nearest == number]
        if len(of_class) < 20:
            continue
        kept = labels == number
        assert 0.3 <= kept.sum() / len(of_class) < 0.4
        # The surest, but for the width of a bin.
        assert sure[kept].min() >= of_class.quantile(0.69) - 0.01
    assert len(labels.unique()) > 2


def test_a_prior_is_what_bayes_says_of_frequent_classes() -> None:
    (_, made, source, target, bicl), shares = seen(), torch.tensor([0.9, 0.1, 0.0])
    settings = replace(NEAR, measure="confidence", threshold=0.6, temperature=0.05, prior=0.5)
    labels = DynamicLabels(settings, CLASSES, 7 * shares)(bicl, made, source, target)
    means = F.normalize(first_means(made, source), dim=1)
    cosines = torch.einsum("bdhw,cd->bchw", F.normalize(target.features, dim=1), means)
    likely = (cosines / 0.05).exp() * shares.sqrt()[:, None, None]
    sure, best = (likely / likely.sum(dim=1, keepdim=True)).max(dim=1)
    # Nothing here lies within rounding of the threshold.
    assert (sure - 0.6).abs().min() > 1e-6
    assert torch.equal(labels, torch.where(sure >= 0.6, best, IGNORE))
    alike = DynamicLabels(replace(settings, prior=0.0), CLASSES)
    without = alike(bicl, made, source, target)
    assert (without == 2).any() and not (labels == 2).any()
    assert (labels == 0).sum() > (without == 0).sum() > 0


def test_the_contrast_rises_over_its_first_steps_and_nothing_else_does() -> None:
    network = toy()
    for index, share in ((0, 0.25), (3, 1.0), (9, 1.0)):
        plain, warming = (
            of(network, warmup=n)(step(network, index, steps=10)).terms for n in (0, 4)
        )
        for name, value in plain.items():
            factor = share if name in ("target_to_source", "source_to_target") else 1.0
            assert value > 0
            torch.testing.assert_close(warming[name], factor * value)


def test_a_projection_is_contrasted_and_trained_and_the_network_behind_it() -> None:
    network = toy()
    method = of(network, projection=True)
    assert {*method.trained()} == {*method.projected.parameters()}
    before = saved(method.projected)
    made = step(network)
    terms = method(made).terms
    terms["target_to_source"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.trained())
    assert network.head.weight.grad is None
    assert any(p.grad is not None and p.grad.any() for p in network.parameters())
    bank = method.prototypes()["source_bank.prototypes"]
    features = method.projected(network(made.source.images).features)
    torch.testing.assert_close(bank, first_means(made, features).detach())
    advance(method, network, optimiser_of(method, network), [made])
    assert not torch.equal(saved(method.projected)[0]["0.weight"], before[0]["0.weight"])
