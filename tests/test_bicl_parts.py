"""`BiCL`, part by part: what each ingredient changes, edges, and numbers worked by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from protocontrast import (
    BiCL,
    bidirectional_contrast,
    labels_to_grid,
    pixel_prototype_contrast,
)
from tests.bicl_steps import CLASSES, assert_state_is, batch, made, run, state

EYE = torch.eye(2).reshape(1, 2, 1, 2)
"""Two pixels, each along its own axis."""


def differ(one: BiCL, other: BiCL, kind: str = "grid") -> None:
    """After the same past, the two give another loss and other gradients on both sides."""
    for seed in range(3):
        run(one, seed, kind)
        run(other, seed, kind)
    (first, first_gradients), (second, second_gradients) = run(one, 7, kind), run(other, 7, kind)
    assert abs(first.loss - second.loss) > 1e-3
    for mine, theirs in zip(first_gradients, second_gradients, strict=True):
        assert (mine - theirs).abs().max() > 1e-5


@pytest.mark.parametrize("prototypes", ["bank", "batch"])
def test_dynamic_labels_change_loss_and_gradient(prototypes: Any) -> None:
    dynamic = made(prototypes=prototypes)
    differ(dynamic, made(prototypes=prototypes, threshold=math.inf))
    out, _ = run(dynamic, 8)
    static = batch(8, "grid")[3]
    filled = (out.target_labels != 255) & (static == 255)
    assert filled.any()
    assert torch.equal(out.target_labels[static != 255], static[static != 255])


def turned_domains(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Target clusters lie beyond half way to the next class; a third of the pixels is labelled."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.eye(4)
    truth = torch.arange(4).repeat(2, 6, 1)
    target_centres = centres + 0.8 * (centres.roll(-1, dims=0) - centres)
    maps = [
        (rows[truth] + 0.05 * torch.randn(2, 6, 4, 4, generator=random)).permute(0, 3, 1, 2)
        for rows in (centres, target_centres)
    ]
    static = truth.clone()
    static[:, 2:] = 255
    return maps[0], truth, maps[1], static, truth


@pytest.mark.parametrize("prototypes", ["bank", "batch"])
def test_calibration_changes_labels_loss_and_gradient(prototypes: Any) -> None:
    settings = {"threshold": 0.5, "momentum": 0.5, "bias_momentum": 0.5, "prototypes": prototypes}
    found = {}
    for calibrate in (True, False):
        bicl = BiCL(4, 4, calibrate=calibrate, **settings)
        for seed in range(20):
            source, labels, target, static, truth = turned_domains(seed)
            leaves = [source.requires_grad_(), target.requires_grad_()]
            # The first steps learn from static labels alone, as a schedule would have it.
            bicl.threshold = math.inf if seed < 10 else 0.5
            out = bicl(leaves[0], labels, leaves[1], static)
        right = (out.target_labels == truth).float().mean().item()
        found[calibrate] = right, out.loss.item(), *torch.autograd.grad(out.loss, leaves)
    assert found[True][0] == 1.0
    assert found[False][0] == pytest.approx(1 / 3)
    assert abs(found[True][1] - found[False][1]) > 0.05
    for mine, theirs in zip(found[True][2:], found[False][2:], strict=True):
        assert (mine - theirs).abs().max() > 1e-3


def test_calibration_serves_the_transfer_only() -> None:
    bicl = made(threshold=math.inf)
    plain = made(threshold=math.inf, calibrate=False)
    for seed in range(3):
        (out, gradients), (other, other_gradients) = run(bicl, seed), run(plain, seed)
        assert torch.equal(out.loss, other.loss)
        assert all(map(torch.equal, gradients, other_gradients))
    assert bicl.domain_bias.bias.any()
    assert_state_is(bicl, state(plain))


def test_a_target_without_static_labels_is_labelled_by_the_source() -> None:
    bicl = made(threshold=0.0)
    out, _ = run(bicl, 0, "grid without static")
    assert out.coverage == 1
    assert out.target_to_source > 0
    assert out.source_to_target > 0


def test_in_the_bank_mode_each_side_moves_only_its_own_features() -> None:
    bicl = made()
    for seed in range(2):
        source, labels, target, static = batch(seed, "grid")
        leaves = [value.float().requires_grad_() for value in (source, target)]
        out = bicl(leaves[0], labels, leaves[1], static)
    to_source = torch.autograd.grad(out.target_to_source, leaves, allow_unused=True)
    to_target = torch.autograd.grad(out.source_to_target, leaves, allow_unused=True)
    assert to_source[0] is to_target[1] is None
    assert to_source[1].any()
    assert to_target[0].any()


def test_in_the_batch_mode_gradient_flows_through_the_prototypes() -> None:
    bicl = made(prototypes="batch")
    source, labels, target, static = batch(0, "grid")
    leaves = [value.float().requires_grad_() for value in (source, target)]
    out = bicl(leaves[0], labels, leaves[1], static)
    for term in (out.target_to_source, out.source_to_target):
        gradients = torch.autograd.grad(term, leaves, retain_graph=True)
        assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("pairwise", [False, True])
def test_the_batch_mode_is_the_function(pairwise: bool) -> None:
    bicl = made(prototypes="batch", pairwise=pairwise)
    run(bicl, 0)
    source, labels, target, static = batch(1, "grid")
    out = bicl(source.float(), labels, target.float(), static)
    direct = bidirectional_contrast(
        source.float(),
        labels,
        target.float(),
        out.target_labels,
        num_classes=CLASSES,
        pairwise=pairwise,
        temperature=0.2,
    )
    assert torch.equal(out.loss, direct.loss)


def test_the_source_term_counts_labels_at_image_resolution() -> None:
    bicl = made(bank_update="after")
    run(bicl, 0, "image")
    source, labels, target, _ = batch(1, "image")
    grid = labels_to_grid(labels, (4, 3))
    fine = bicl(source.float(), labels, target.float(), update=False)
    coarse = bicl(source.float(), grid, target.float(), update=False)
    assert torch.equal(fine.target_to_source, coarse.target_to_source)
    assert not torch.equal(fine.source_to_target, coarse.source_to_target)
    counts = labels_to_grid(labels, (4, 3), mode="counts", num_classes=CLASSES)
    both = bicl.source_bank.present & bicl.target_bank.present
    expected = pixel_prototype_contrast(
        source.float(),
        counts,
        bicl.target_bank.prototypes,
        present=bicl.target_bank.present,
        class_weight=both.float(),
        temperature=0.2,
    )
    torch.testing.assert_close(fine.source_to_target, expected)


@pytest.mark.parametrize("absent", ["mask", "floor"])
def test_with_empty_banks_the_loss_is_zero_and_connected(absent: Any) -> None:
    bicl = made(absent=absent).eval()
    out, gradients = run(bicl, 0, "grid without static")
    assert out.loss.item() == out.target_to_source.item() == out.source_to_target.item() == 0.0
    assert out.coverage == 0
    assert out.target_labels.eq(255).all()
    assert out.class_share.eq(0).all()
    assert not any(gradient.any() for gradient in gradients)


def test_after_the_first_step_sees_empty_banks() -> None:
    bicl = made(bank_update="after")
    out, gradients = run(bicl, 0)
    assert out.loss == 0
    assert not any(gradient.any() for gradient in gradients)
    assert bicl.source_bank.present.any()
    out, gradients = run(bicl, 0)
    assert out.loss > 0
    assert all(gradient.any() for gradient in gradients)


def test_coverage_and_class_share_by_hand() -> None:
    bicl = BiCL(3, 2, threshold=math.inf)
    source = torch.tensor([[[0, 0, 0, 1, 255, 255]]])
    target = torch.tensor([[[0, 1, 1, 2, 255, 255, 255, 255]]])
    out = bicl(torch.ones(1, 2, 1, 6), source, torch.ones(1, 2, 1, 8), target)
    assert out.coverage.item() == 0.5
    # Of 4 labelled target pixels 1, 2 and 1; of 4 labelled source pixels 3, 1 and none.
    torch.testing.assert_close(out.class_share, torch.tensor([0.25 / 0.75, 0.5 / 0.25, 0.0]))


def test_one_step_by_hand() -> None:
    bicl = BiCL(2, 2, temperature=1.0, threshold=0.7, weights=(1.0, 10.0))
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).t().reshape(1, 2, 1, 2) * 3
    out = bicl(EYE, torch.tensor([[[0, 1]]]), target)
    # Confidence e / (e + 1) = 0.731 >= 0.7; every cosine is 0 or 1, so each term is log(1 + 1/e).
    term = math.log(1 + math.exp(-1))
    assert out.target_labels.tolist() == [[[0, 1]]]
    assert out.target_to_source.item() == pytest.approx(term, rel=1e-6)
    assert out.source_to_target.item() == pytest.approx(term, rel=1e-6)
    assert out.loss.item() == pytest.approx(11 * term, rel=1e-6)
    assert bicl.target_bank.prototypes.tolist() == [[3.0, 0.0], [0.0, 3.0]]
    torch.testing.assert_close(bicl.domain_bias.bias, 0.01 * 2 * torch.eye(2))
    strict = BiCL(2, 2, temperature=1.0, threshold=0.74)
    assert strict(EYE, torch.tensor([[[0, 1]]]), target).coverage == 0
