"""`BiCL` equals the composition of public functions: its passes are only an order of reading."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from protocontrast import naive
from tests.bicl_steps import CLASSES, batch, made
from tests.test_bicl import KINDS, SETTINGS


def filled_counts(static: Tensor, moved: Tensor) -> Tensor:
    """Counts of given labels; where a cell has none, its pixels count for the transferred label."""
    size = (moved.shape[1], moved.shape[2])
    counts = pc.labels_to_grid(static, size, mode="counts", num_classes=CLASSES)
    pixels = pc.labels_to_grid(torch.zeros_like(static), size, mode="counts", num_classes=1)
    own = (moved[:, None] == torch.arange(CLASSES)[:, None, None]) * pixels
    return torch.where(counts.sum(dim=1, keepdim=True) == 0, own, counts)


def composed(
    bicl: pc.BiCL, source: Tensor, labels: Tensor, target: Tensor, static: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """One training step of the module's own banks and bias, function by function."""
    size, backend = (source.shape[2], source.shape[3]), bicl.backend
    grid = pc.labels_to_grid(labels, size)

    def means(features: Tensor, labels: Tensor) -> pc.ClassPrototypes:
        units = bicl.source_bank.normalize == "features"
        with torch.no_grad():
            return pc.class_prototypes(features, labels, CLASSES, normalize=units, backend=backend)

    def remember_target() -> None:
        stats = bicl.target_bank.update_from(means(target, fused))
        both = stats.present & bicl.source_bank.present
        rows = bicl.target_bank.on_scale(stats.mean)
        bicl.domain_bias.update(bicl.source_bank.prototypes, rows, both)

    before = bicl.bank_update == "before"
    if before:
        bicl.source_bank.update_from(means(source, grid))
    rows = bicl.source_bank.prototypes
    moved = fused = pc.transfer_labels(
        target,
        bicl.domain_bias.calibrate(rows) if bicl.calibrate else rows,
        present=bicl.source_bank.present,
        threshold=bicl.threshold,
        measure=bicl.measure,
        temperature=bicl.temperature,
        backend=backend,
    ).labels
    targets, target_targets = grid, fused
    if labels.shape != grid.shape:
        targets = pc.labels_to_grid(labels, size, mode="counts", num_classes=CLASSES)
    if static is not None:
        target_targets = fused = pc.fuse_labels(pc.labels_to_grid(static, size), moved)
        if static.shape != fused.shape:
            target_targets = filled_counts(static, moved)
    if before:
        remember_target()
    banks = [
        (bank.prototypes, bank.present) if bicl.prototypes == "bank" else None
        for bank in (bicl.source_bank, bicl.target_bank)
    ]
    images = [slice(None)]
    if bicl.pairwise:
        images = [slice(b, b + 1) for b in range(len(source))]

    def between(part: slice) -> list[Tensor]:
        sides = [(source, grid, targets), (target, fused, target_targets)]
        rows = []
        for known, (features, labels, _) in zip(banks, sides, strict=True):
            own = pc.class_prototypes(features[part], labels[part], CLASSES, backend=backend)
            rows.append((own.mean, own.present) if known is None else known)
        shared = rows[0][1] & rows[1][1]
        return [
            pc.pixel_prototype_contrast(
                features[part], pulled_to[part], *to[:1], present=to[1],
                class_weight=class_weight(shared, pulled_to[part]),
                temperature=bicl.temperature, absent=bicl.absent, backend=backend,
            )
            for (features, _, pulled_to), to in zip(sides[::-1], rows, strict=True)
        ]  # fmt: skip

    def class_weight(shared: Tensor, pulled_to: Tensor) -> Tensor:
        if bicl.balance == "pixel":
            return shared.float()
        if not pulled_to.is_floating_point():
            pulled_to = torch.stack([pulled_to == c for c in range(CLASSES)], dim=1).double()
        rows = pulled_to.movedim(1, -1).flatten(0, -2).double()
        return naive.equal_weights(rows, shared, 20)

    contrasts = [torch.stack(terms).mean() for terms in zip(*map(between, images), strict=True)]
    if not before:
        bicl.source_bank.update_from(means(source, grid))
        remember_target()
    return contrasts, fused


def compare(
    bicl: pc.BiCL,
    kinds: list[str],
    dtype: torch.dtype,
    spoilt: int | None = None,
    twin: pc.BiCL | None = None,
) -> None:
    """Both over the same steps: labels equal, numbers within a few roundings of `dtype`."""
    twin = copy.deepcopy(bicl) if twin is None else twin
    tolerance = {"rtol": 20 * torch.finfo(dtype).eps, "atol": 20 * torch.finfo(dtype).eps}
    for seed, kind in enumerate(kinds):
        source, labels, target, static = batch(seed, kind)
        if spoilt is not None and static is not None:
            static[static == 0] = 255
            static[0, 0, 0], target[0, 1, 0, 0] = (0, float("nan")) if seed == spoilt else (1, 1.0)
        leaves = [value.to(dtype).requires_grad_() for value in (source, target)]
        out = bicl(leaves[0], labels, leaves[1], static)
        contrasts, fused = composed(twin, leaves[0], labels, leaves[1], static)
        assert torch.equal(out.target_labels, fused)
        torch.testing.assert_close(out[1:3], contrasts, **tolerance)
        weighted = bicl.weights[0] * contrasts[0] + bicl.weights[1] * contrasts[1]
        pairs = zip(
            *(torch.autograd.grad(loss, leaves) for loss in (out.loss, weighted)), strict=True
        )
        for mine, other in pairs:
            assert torch.isfinite(mine).all()
            torch.testing.assert_close(mine, other, **tolerance)
        state = twin.state_dict()
        for name, value in bicl.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting(name: str, dtype: torch.dtype) -> None:
    compare(made(**{"temperature": 0.2, **SETTINGS[name]}), KINDS, dtype)


@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_backends(backend: Any) -> None:
    compare(made(backend=backend), KINDS, torch.float32)


@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_a_class_whose_first_mean_is_not_finite_takes_no_part(bank_update: Any) -> None:
    """The pixel is NaN: the bank skips its class, and the loss leaves it out."""
    bicl = made(threshold=math.inf, bank_update=bank_update)
    compare(bicl, ["grid"], torch.float32, spoilt=0)
    assert bicl.target_bank.skipped.tolist() == [1, 0, 0, 0, 0]


def test_the_comparison_can_fail() -> None:
    with pytest.raises(AssertionError):
        compare(made(), KINDS, torch.float32, twin=made(momentum=0.69))
