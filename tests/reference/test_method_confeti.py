"""CONFETI: contrast, spread and prototypes are the released ones; its switches work."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.methods.activations import ActivationPrototypes, strongest
from reference.methods.confeti import CONFETI
from reference.networks.toy import build_network
from reference.training.method import Start
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


def test_the_warm_up_takes_source_cells_and_has_no_contrast() -> None:
    method = CONFETI(64)
    step = step_of(method)
    done = method(step)
    assert set(done.losses) == {
        "source_cross_entropy", "mixed_cross_entropy", "translation", "similarity", "presence",
    }  # fmt: skip
    mixed = method.seen(step)
    pasted = mixed.mixed_labels[mixed.from_source].unique()
    assert method.heads.bank.present.nonzero().flatten().tolist() == pasted.tolist()


def test_heads_of_the_teacher_follow_slowly() -> None:
    rows = ActivationPrototypes(8, ramp=False)
    features, labels = normal(0, (1, 8, 4, 4), torch.float32), label_map(0, (1, 4, 4), 3, "full")
    rows.update(features, labels, None, 0)
    slow = next(rows.slow_project.parameters())
    before = slow.clone()
    with torch.no_grad():
        rows.project.weight += 1.0
    rows.update(features, labels, None, 1)
    torch.testing.assert_close(slow - before, torch.full_like(slow, 0.01), rtol=1e-3, atol=1e-6)
    assert not slow.requires_grad


def test_similarity_is_the_squared_difference_of_the_maps() -> None:
    method = begun(CONFETI(64))
    rows, table = method.heads, method.heads.bank.prototypes.double()
    source, styled = (normal(seed, (2, 64, 3, 4)).requires_grad_() for seed in (0, 1))
    maps = [
        torch.einsum("bdhw,cd->bchw", one, table)
        for one in (rows.project(source), rows.match(rows.project(styled)))
    ]
    expected, found = F.mse_loss(*maps), rows.similarity(source, styled)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    pairs = (torch.autograd.grad(one, (source, styled)) for one in (found, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_presence_teaches_the_activation_alone() -> None:
    rows = ActivationPrototypes(8, ramp=True).double()
    features = normal(0, (2, 8, 4, 5)).requires_grad_()
    labels = torch.tensor([[3] * 20, [7] * 20]).reshape(2, 4, 5)
    loss = rows.presence(features, labels)
    mean = torch.einsum("bdhw,cd->bc", features, rows.activate.weight[..., 0, 0]) / 20
    shown = torch.zeros(2, 19, dtype=torch.float64)
    shown[0, 3] = shown[1, 7] = 1
    expected = -(shown * mean.sigmoid().log() + (1 - shown) * (-mean).sigmoid().log()).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert features.grad is None
    assert rows.activate.weight.grad is not None
