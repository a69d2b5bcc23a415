"""Training: it learns, each switch does what it says, labels stay out, failures are told."""

from __future__ import annotations

import ast
import inspect
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import reference.training.adapt_step
import reference.training.history
import reference.training.pseudo_labels
import reference.training.stages
from reference.data.arrays import ArrayDomain
from reference.data.transforms import batch
from reference.networks.toy import build_network
from reference.training.adapt_step import adapt_step, build_bicl
from reference.training.config import BICL, ROWS, Adaptation, Contrast, Supervised, without
from reference.training.history import Observation
from reference.training.losses import NonFiniteLossError
from reference.training.stages import Trained, adapt, train_supervised

SHORT = Supervised(steps=20, batch_size=2)


def blocks(count: int, *, shade: float = 1.0, seed: int = 0) -> ArrayDomain:
    """Images of 16x32: road below, sky above, a car in the middle; `shade` darkens them."""
    colours = {0: (120, 120, 120), 10: (90, 160, 240), 13: (220, 40, 30)}
    labels = torch.zeros(count, 16, 32, dtype=torch.uint8)
    labels[:, :8] = 10
    labels[:, 4:12, 8:24] = 13
    images = torch.zeros(count, 3, 16, 32)
    for label, colour in colours.items():
        inside = (labels == label)[:, None]
        images = torch.where(inside, torch.tensor(colour).view(3, 1, 1) * shade, images)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return ArrayDomain((images + 8 * noise).clamp(0, 255).byte(), labels, ("",) * count)


@pytest.fixture(scope="module")
def source() -> ArrayDomain:
    return blocks(6)


@pytest.fixture(scope="module")
def target_images() -> Tensor:
    return blocks(5, shade=0.6, seed=1).images


@pytest.fixture(scope="module")
def start(source: ArrayDomain) -> Trained:
    return train_supervised(source, SHORT, seed=0)


def brief(settings: Adaptation) -> Adaptation:
    return replace(settings, steps=4, rounds=2, source_batch=2, target_batch=2)


def weights(trained: Trained) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trained.network.parameters()])


def test_the_source_stage_learns(start):
    losses = start.history.losses["cross_entropy"]
    assert len(losses) == SHORT.steps
    assert losses[-1] < 0.5 * losses[0]
    assert start.history.windows == []
    assert start.history.seconds > 0


def test_a_run_repeats_and_another_seed_differs(source):
    few = replace(SHORT, steps=2)
    first, again, other = (train_supervised(source, few, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_training_can_go_on_from_a_network_which_stays_as_it_was(source, start):
    before = weights(start).clone()
    more = train_supervised(source, replace(SHORT, steps=1), seed=0, network=start.network)
    assert torch.equal(weights(start), before)
    assert 0 < (weights(more) - before).abs().max() < 0.02


def test_labels_are_required_where_they_are_the_lesson(target_images):
    domain = ArrayDomain(target_images, None, ("",) * len(target_images))
    sentence = "cell_labels: expected labels, got None. Hint: make the reader with labels=True."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        train_supervised(domain, SHORT, seed=0)


@pytest.mark.parametrize(
    ("settings", "first", "last"),
    [
        (ROWS["source_only_continued"], set(), set()),
        (ROWS["entropy_only"], {"entropy"}, {"entropy"}),
        (ROWS["self_training"], {"static_cross_entropy"}, {"static_cross_entropy"}),
        (
            ROWS["contrast_only"],
            {"target_to_source", "source_to_target"},
            {"target_to_source", "source_to_target"},
        ),
        (
            BICL,
            {"target_to_source", "source_to_target"},
            {"target_to_source", "source_to_target", "entropy", "static_cross_entropy"},
        ),
    ],
)
def test_each_row_has_its_terms_from_their_round_on(
    source, target_images, start, settings, first, last
):
    trained = adapt(start.network, source, target_images, brief(settings), seed=0)
    series = trained.history.losses
    active = [{term for term in series if series[term][step] is not None} for step in (0, -1)]
    assert active == [first | {"source_cross_entropy"}, last | {"source_cross_entropy"}]
    assert all(len(values) == 4 for values in series.values())
    assert (trained.bicl is None) == (settings.contrast is None)


def test_the_control_never_looks_at_a_target_image(source, start):
    nothing = torch.empty(0, 3, 16, 32, dtype=torch.uint8)
    trained = adapt(start.network, source, nothing, brief(ROWS["source_only_continued"]), seed=0)
    assert trained.history.start_share is None
    assert trained.history.windows == []


def test_adapting_leaves_the_source_network_alone_and_repeats(source, target_images, start):
    before = weights(start).clone()
    first, again = (
        adapt(start.network, source, target_images, brief(BICL), seed=3) for _ in range(2)
    )
    assert torch.equal(weights(start), before)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), before)


@pytest.mark.parametrize(
    "name",
    [
        "target_to_source",
        "source_to_target",
        "dynamic_labels",
        "static_labels",
        "entropy",
        "bank",
        "delay",
    ],
)
def test_every_switch_changes_the_training(source, target_images, start, name):
    # A low threshold and a fast bias let four steps show what three hundred would.
    def eager(settings: Adaptation) -> Adaptation:
        contrast = replace(settings.contrast, threshold=0.3, bias_momentum=0.5)
        return replace(brief(settings), contrast=contrast)

    full, reduced = (
        adapt(start.network, source, target_images, eager(settings), seed=0)
        for settings in (BICL, without(name))
    )
    assert not torch.equal(weights(full), weights(reduced))


@pytest.mark.parametrize(("calibrate", "coverage"), [(True, 1.0), (False, 0.0)])
def test_calibration_follows_a_domain_that_moved_away(calibrate, coverage):
    settings = Contrast(calibrate=calibrate, threshold=0.9, momentum=0.0, bias_momentum=0.0)
    bicl = build_bicl(settings, 2)
    source, target = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    source, target = (feature.view(1, 2, 1, 1).expand(1, 2, 4, 4) for feature in (source, target))
    labels = torch.full((1, 4, 4), 3)
    bicl(source, labels, target, labels)
    assert bicl(source, labels, target).coverage == coverage


def test_without_dynamic_labels_the_contrast_sees_the_static_ones_alone(source, target_images):
    network = build_network(seed=0)
    settings = Adaptation(contrast=Contrast(dynamic_labels=False))
    bicl = build_bicl(settings.contrast, 64)
    target = ArrayDomain(target_images, None, ("",) * len(target_images))
    labelled, unlabelled = batch(source, 0, 0, 2), batch(target, 0, 0, 2, stream=1)
    static = torch.full((2, 4, 8), 255)
    static[:, 0] = 10
    done = adapt_step(network, bicl, labelled, unlabelled, static, settings, 0)
    assert torch.equal(done.contrast.target_labels, static)
    done = adapt_step(network, bicl, labelled, unlabelled, None, settings, 0)
    assert done.contrast.coverage == 0
    assert done.losses["target_to_source"] == 0


def test_weights_of_the_terms_are_applied(source, target_images, start):
    def first_losses(scale: float) -> dict[str, float]:
        settings = Adaptation(
            steps=1,
            rounds=1,
            source_batch=2,
            target_batch=2,
            contrast=Contrast(
                target_to_source=0.4 * scale, source_to_target=0.2 * scale, threshold=0.3
            ),
            entropy_weight=0.3 * scale,
            static_weight=0.5 * scale,
            static_from_round=0,
        )
        losses = adapt(start.network, source, target_images, settings, seed=0).history.losses
        return {name: series[0] for name, series in losses.items()}

    once, thrice = first_losses(1.0), first_losses(3.0)
    assert once["source_cross_entropy"] == thrice["source_cross_entropy"]
    for name in ("target_to_source", "source_to_target", "entropy", "static_cross_entropy"):
        assert once[name] > 0
        assert thrice[name] == pytest.approx(3 * once[name], rel=1e-5)


def test_an_observer_sees_every_step_and_changes_nothing(source, target_images, start):
    seen: list[Observation] = []
    settings = brief(BICL)
    watched = adapt(start.network, source, target_images, settings, seed=0, observe=seen.append)
    alone = adapt(start.network, source, target_images, settings, seed=0)
    assert torch.equal(weights(watched), weights(alone))
    assert [observation.step for observation in seen] == [0, 1, 2, 3]
    assert seen[0].static_labels is None
    assert seen[3].static_labels.shape == seen[3].pseudo_labels.shape == (2, 4, 8)
    valid = seen[3].static_labels != 255
    assert torch.equal(seen[3].pseudo_labels[valid], seen[3].static_labels[valid])


def test_training_has_no_way_to_a_target_label():
    assert inspect.signature(adapt).parameters["target_images"].annotation == "Tensor"
    modules = (
        reference.training.stages,
        reference.training.adapt_step,
        reference.training.pseudo_labels,
        reference.training.history,
    )
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {
            "reference.evaluation.label_accuracy",
            "reference.evaluation.evaluate",
        }


def test_a_term_that_explodes_stops_the_run_by_name(source, target_images, start):
    settings = brief(replace(BICL, entropy_weight=math.inf, entropy_from_round=0))
    sentence = (
        "broken: expected a finite loss, got entropy = inf at step 0. "
        "Hint: lower the learning rate or the weight of this term."
    )
    before = weights(start).clone()
    with pytest.raises(NonFiniteLossError, match=f"^{re.escape(sentence)}$"):
        adapt(start.network, source, target_images, settings, seed=0, run="broken")
    assert torch.equal(weights(start), before)
