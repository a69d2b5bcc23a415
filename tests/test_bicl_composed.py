"""`BiCL` equals the composition of public functions: its passes are only an order of reading."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.bicl_steps import CLASSES, batch, made
from tests.test_bicl import KINDS, SETTINGS


def composed(
    bicl: pc.BiCL, source: Tensor, labels: Tensor, target: Tensor, static: Tensor | None
) -> tuple[pc.BidirectionalContrast, Tensor]:
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
    fused = pc.transfer_labels(
        target,
        bicl.domain_bias.calibrate(rows) if bicl.calibrate else rows,
        present=bicl.source_bank.present,
        threshold=bicl.threshold,
        measure=bicl.measure,
        temperature=bicl.temperature,
        backend=backend,
    ).labels
    if static is not None:
        fused = pc.fuse_labels(pc.labels_to_grid(static, size), fused)
    if before:
        remember_target()
    banks = {
        "source_prototypes": bicl.source_bank.prototypes,
        "target_prototypes": bicl.target_bank.prototypes,
        "source_present": bicl.source_bank.present,
        "target_present": bicl.target_bank.present,
    }
    contrast = pc.bidirectional_contrast(
        source,
        labels,
        target,
        fused,
        num_classes=CLASSES,
        pairwise=bicl.pairwise,
        temperature=bicl.temperature,
        absent=bicl.absent,
        backend=backend,
        **(banks if bicl.prototypes == "bank" else {}),
    )
    if not before:
        bicl.source_bank.update_from(means(source, grid))
        remember_target()
    return contrast, fused


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
        contrast, fused = composed(twin, leaves[0], labels, leaves[1], static)
        assert torch.equal(out.target_labels, fused)
        for name in ("target_to_source", "source_to_target"):
            torch.testing.assert_close(getattr(out, name), getattr(contrast, name), **tolerance)
        weighted = bicl.weights[0] * contrast.target_to_source
        weighted = weighted + bicl.weights[1] * contrast.source_to_target
        pairs = zip(
            *(torch.autograd.grad(loss, leaves) for loss in (out.loss, weighted)), strict=True
        )
        for mine, other in pairs:
            assert torch.isfinite(mine).all()
            torch.testing.assert_close(mine, other, **tolerance)
        state = twin.state_dict()
        for name, value in bicl.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting(name: str, dtype: torch.dtype) -> None:
    compare(made(**{"temperature": 0.2, **SETTINGS[name]}), KINDS, dtype)


@pytest.mark.parametrize("backend", ["eager", "naive"])
def test_backends(backend: Any) -> None:
    compare(made(backend=backend), KINDS, torch.float32)


@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_a_class_whose_first_mean_is_not_finite_takes_no_part(bank_update: Any) -> None:
    """The pixel is NaN: the bank skips its class, and the loss leaves it out."""
    bicl = made(threshold=2.0, bank_update=bank_update)
    compare(bicl, ["grid"], torch.float32, spoilt=0)
    assert bicl.target_bank.skipped.tolist() == [1, 0, 0, 0, 0]


def test_the_comparison_can_fail() -> None:
    with pytest.raises(AssertionError):
        compare(made(), KINDS, torch.float32, twin=made(momentum=0.69))
