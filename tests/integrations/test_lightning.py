"""The module of docs/extending.md under Lightning's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from tests.forked import on_ranks
from tests.integrations.on_lightning import contrast_module, fit_a_rank, trainer
from tests.integrations.patches import (
    PatchNetwork,
    assert_equal,
    assert_seen,
    cross_entropy,
    loader,
)


def fitted(folder: Path, epochs: int, **more: Any) -> tuple[Any, Any]:
    module, fit = contrast_module(), {k: more.pop(k) for k in ("ckpt_path",) if k in more}
    leader = trainer(folder, max_epochs=epochs, **more)
    leader.fit(module, loader(), **fit)
    return module, leader


def test_the_loss_falls_and_the_bank_has_seen_every_batch(tmp_path: Path) -> None:
    before = cross_entropy(contrast_module().network)
    module, leader = fitted(tmp_path, epochs=8)
    assert_seen(module.bank, images=8 * 16)
    assert leader.logged_metrics["contrast"] > 0
    assert cross_entropy(module.network) < 0.9 * before


def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    whole, _ = fitted(tmp_path / "whole", epochs=4)
    _, leader = fitted(tmp_path / "half", epochs=2)
    leader.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fitted(tmp_path / "rest", epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert_equal(resumed.state_dict(), whole.state_dict())


def test_a_module_is_loaded_with_its_bank(tmp_path: Path) -> None:
    module, leader = fitted(tmp_path, epochs=1)
    leader.save_checkpoint(tmp_path / "last.ckpt")
    loaded = type(module).load_from_checkpoint(tmp_path / "last.ckpt", network=PatchNetwork())
    assert_equal(loaded.state_dict(), module.state_dict())
    assert_seen(loaded.bank, images=16)


def test_features_are_narrow_under_amp_and_the_bank_is_not(tmp_path: Path) -> None:
    module = contrast_module()
    seen = []
    module.contrast.register_forward_pre_hook(lambda _, args: seen.extend(args[::2]))
    trainer(tmp_path, max_epochs=1, precision="bf16-mixed").fit(module, loader())
    assert [value.dtype for value in seen] == [torch.bfloat16, torch.float32] * 4
    assert_seen(module.bank, images=16)
    plain, _ = fitted(tmp_path, epochs=1)
    torch.testing.assert_close(module.bank.prototypes, plain.bank.prototypes, atol=0.02, rtol=0.02)


def test_two_ranks_keep_one_bank(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    codes = on_ranks(fit_a_rank, tmp_path, log=log, timeout=400)
    assert codes == [0, 0], log.read_text()
    banks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    assert_equal(banks[0], banks[1])
    alone = contrast_module()
    # Lightning shuffles what it deals to ranks, so every step sees all images there are.
    trainer(tmp_path, max_epochs=4).fit(alone, loader(images=8, batch_size=8))
    for name, value in alone.bank.state_dict().items():
        torch.testing.assert_close(banks[0][name], value)
