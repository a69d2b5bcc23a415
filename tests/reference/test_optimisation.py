"""Optimisers: the head's rate, weight decay, and the rate of a phase in every group."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference.engine.optimisation import Precision, build_optimiser, set_learning_rate
from reference.engine.phases import Phase, phases
from reference.engine.settings import Machine
from reference.engine.stage_settings import Optimiser
from reference.engine.state import RunState, seed_dropout

from tests.reference.small_networks import small_deeplab
from tests.reference.tiny_runs import ALONE, EVERYTHING


@pytest.mark.parametrize(("kind", "made"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_head_learns_ten_times_as_fast(kind: str, made: type):
    settings = Optimiser(kind=kind, learning_rate=0.1, weight_decay=0.02, poly_power=1.0)
    optimiser = build_optimiser(small_deeplab(), settings)
    assert type(optimiser) is made
    phase = Phase("source", 0, 4, None, False, True, settings, 0.5, 0, 4.0)
    assert set_learning_rate(optimiser, phase, 2) == pytest.approx(0.025)
    rates = {group["name"]: group["lr"] for group in optimiser.param_groups}
    assert rates == pytest.approx({"backbone": 0.025, "head": 0.25})
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.02}


def test_frozen_scale_and_shift_are_in_no_group():
    network = small_deeplab()
    optimiser = build_optimiser(network, Optimiser())
    moved = {id(value) for group in optimiser.param_groups for value in group["params"]}
    assert id(network.backbone.bn1.weight) not in moved
    assert id(network.backbone.conv1.weight) in moved


def test_dropout_follows_from_seed_iteration_part_and_rank():
    def drawn(*key: int) -> float:
        seed_dropout(*key)
        return float(torch.rand(()))

    before = torch.random.get_rng_state()
    try:
        assert drawn(1, 2, 3, 4) == drawn(1, 2, 3, 4)
        others = {drawn(0, 2, 3, 4), drawn(1, 0, 3, 4), drawn(1, 2, 0, 4), drawn(1, 2, 3, 0)}
        assert len(others | {drawn(1, 2, 3, 4)}) == 5
    finally:
        torch.random.set_rng_state(before)


def test_precision_is_fp32_on_the_cpu_unless_asked():
    assert Precision(Machine(device="cpu"), ALONE).name == "fp32"
    assert not Precision(Machine(device="cpu"), ALONE).scaler.is_enabled()


def test_the_source_stem_begins_where_the_warm_up_has_brought_the_target_stem():
    deeplab = replace(EVERYTHING.network.deeplab, stems="per_domain")
    settings = replace(EVERYTHING, network=replace(EVERYTHING.network, deeplab=deeplab))
    state = RunState(settings, ALONE)
    backbone = state.network.backbone
    with torch.no_grad():
        backbone.target.conv1.weight.add_(1)
    warmup, first, _ = phases(settings)
    state.enter(warmup)
    assert not torch.equal(backbone.conv1.weight, backbone.target.conv1.weight)
    state.enter(first)
    assert torch.equal(backbone.conv1.weight, backbone.target.conv1.weight)
