"""What `benchmarks.tune` does to find rows, on the interpreter and with a clock that is none."""

from typing import Any

import pytest
import torch

from benchmarks import tune
from benchmarks.tune import Job
from protocontrast.kernels import configs
from protocontrast.kernels.configs import Config
from tests.strategies import label_map, normal

TILES = Config(32, 16, 4, 1), Config(16, 16, 4, 1), Config(64, 32, 4, 2)


@pytest.mark.parametrize("kernel", [*configs.KERNELS, *configs.LEFT])
def test_every_kernel_has_a_call_that_takes_the_candidates_tile(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "candidates", lambda job: TILES)
    # Of few channels no logits are left.
    channels = 150 if kernel in configs.LEFT else 40
    job = Job(kernel, "float32", channels, 3)
    assert tune.starts(job, "interpreter")
    call = tune.call_of(job, normal(0, (1, channels, 70), torch.float32), label_map(1, (1, 70), 3))
    tiles = []

    def time(launch: Any) -> float:
        tiles.append((launch.meta.BLOCK_P, launch.meta.BLOCK_D))
        return float(launch.meta.BLOCK_P)

    found = sorted(tune.trials(job, "interpreter", call, time))
    assert tiles == [config[:2] for config in TILES]
    assert [(taken, row.config.block_p) for taken, row in found] == [(16, 16), (32, 32), (64, 64)]


def test_a_tile_that_computes_something_else_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "candidates", lambda job: TILES)
    job = Job("logits", "float32", 40, 3)
    right = tune.call_of(job, normal(0, (1, 40, 70), torch.float32), label_map(1, (1, 70), 3))

    def call() -> list[torch.Tensor]:
        wrong = configs.configuration("logits", "interpreter", 4, 40, 3).block_p == 16
        return [value + 100 * wrong for value in right()]

    found = [row.config for _, row in tune.trials(job, "interpreter", call, lambda launch: 1.0)]
    assert found == [TILES[0], TILES[2]]


def test_a_tile_that_does_not_run_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "candidates", lambda job: TILES)
    job = Job("transfer", "float32", 40, 3)
    call = tune.call_of(job, normal(0, (1, 40, 70), torch.float32), label_map(1, (1, 70), 3))

    def time(launch: Any) -> float:
        if launch.meta.BLOCK_P == 64:
            raise MemoryError("too much shared memory")
        return 1.0

    assert [r.config for _, r in tune.trials(job, "interpreter", call, time)] == list(TILES[:2])
    assert f"{TILES[2]}: MemoryError" in capsys.readouterr().err
