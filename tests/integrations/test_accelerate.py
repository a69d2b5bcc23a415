"""The loop of docs/extending.md under Accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate")

import accelerate
from accelerate.state import AcceleratorState, GradientState

from protocontrast import PrototypeBank
from tests.forked import on_ranks
from tests.integrations.on_accelerate import train_in_a_process, trained
from tests.integrations.patches import PatchNetwork, assert_equal, assert_seen, cross_entropy


@pytest.fixture
def accelerator(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One as at the start of a program; its settings outlive it otherwise."""
    yield accelerate.Accelerator(cpu=True, mixed_precision=getattr(request, "param", "no"))
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_the_loss_falls_and_the_bank_has_seen_every_batch(accelerator: Any) -> None:
    torch.manual_seed(0)
    before = cross_entropy(PatchNetwork())
    network, bank = trained(accelerator, images=128)
    assert_seen(bank, images=128)
    assert cross_entropy(network) < 0.9 * before


def test_a_resumed_run_ends_as_one_that_never_stopped(accelerator: Any, tmp_path: Path) -> None:
    trained(accelerator)
    accelerator.save_state(str(tmp_path / "state"))
    resumed = trained(accelerate.Accelerator(cpu=True), tmp_path / "state")
    whole = trained(accelerate.Accelerator(cpu=True), times=2)
    for ours, expected in zip(resumed, whole, strict=True):
        assert_equal(ours.state_dict(), expected.state_dict())
    assert_seen(resumed[1], images=32)


@pytest.mark.parametrize("accelerator", ["bf16"], indirect=True)
def test_under_bf16_features_and_bank_are_float32(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, narrow, update = [], [], PrototypeBank.update
    monkeypatch.setattr(
        PrototypeBank, "update", lambda *given: (seen.append(given[1].dtype), update(*given))[1]
    )

    def watch(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Conv2d):
            narrow.append(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(watch)
    network, bank = trained(accelerator)
    hook.remove()
    assert set(narrow) == {torch.bfloat16}
    assert seen == [torch.float32] * 4
    assert_seen(bank, images=16)
    assert network.backbone.weight.dtype == torch.float32


def test_two_processes_keep_one_bank(accelerator: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    codes = on_ranks(train_in_a_process, tmp_path, log=log, timeout=400)
    assert codes == [0, 0], log.read_text()
    banks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    assert_equal(banks[0], banks[1])
    # Batches are dealt in turn, so one process with pairs of them sees the same steps.
    _, alone = trained(accelerator, batch_size=8)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(banks[0][name], value)
