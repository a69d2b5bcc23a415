"""What ranks share: values, sums, gradients, refusals; alone, a process shares with itself."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import protocontrast as pc
from reference.run.folder import RunFolder
from reference.run.ranks import Precision, Ranks, asked_to_stop, joined
from reference.settings import Machine
from tests.forked import on_ranks


def meet(place: Path) -> None:
    """What one of two ranks does and asserts."""
    with joined(Machine(device="cpu", threads=1)) as ranks:
        me = ranks.rank
        assert ranks.shared and ranks.is_main == (me == 0)
        assert ranks.broadcast({"from": me}) == {"from": 0}
        mine = torch.tensor([1.0, me])
        assert ranks.total(mine).tolist() == [2, 1] and mine.tolist() == [1, me]
        # A term, and a request to stop, of one rank alone.
        means, stop = ranks.mean_of_terms(
            {"a": 2.0 * me, **({"b": 4.0} if me else {})}, asked=me == 1
        )
        assert means == {"a": 1.0, "b": 2.0} and stop
        both, one, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        both.grad = torch.full((2,), float(me))
        one.grad = torch.ones(2) if me else None
        ranks.average_gradients([both, one, none])
        assert both.grad.tolist() == one.grad.tolist() == [0.5, 0.5] and none.grad is None
        statistics = nn.BatchNorm1d(2)
        statistics.running_mean.fill_(me + 3)
        ranks.share_buffers(statistics)
        assert statistics.running_mean.tolist() == [3, 3]
        with ranks.one_first():
            assert me == 0 or (place / "made").is_file()
            (place / "made").touch()
        refused = RunFolder(place, {}, ranks, resume=False)
        try:
            refused.__enter__()
        except ValueError as error:
            (place / f"refused{me}").write_text(str(error))
        # The others write nothing.
        assert me == 0 or (refused.record(0) == [] and not (place / "origin.json").exists())


def test_two_ranks_share_values_gradients_and_refusals(tmp_path: Path):
    log = tmp_path.with_suffix(".log")
    assert on_ranks(meet, tmp_path, log=log) == [0, 0], log.read_text()
    first, second = ((tmp_path / f"refused{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("train: expected folder to be a new or empty folder, got ")


def test_without_torchrun_a_process_is_alone():
    with joined(Machine(device="cpu")) as ranks:
        assert ranks == Ranks()
        assert (ranks.is_main, ranks.shared) == (True, False)
        assert ranks.broadcast("as before") == "as before"
        assert ranks.total(torch.tensor([3.0])).tolist() == [3.0]
        parameter = nn.Parameter(torch.zeros(1))
        ranks.average_gradients([parameter])
        assert parameter.grad is None


def test_threads_and_repeatable_operations_last_as_long_as_the_run():
    before = torch.get_num_threads()
    with joined(Machine(device="cpu", threads=before + 1, deterministic=True)):
        assert torch.get_num_threads() == before + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_backend_lasts_as_long_as_the_run():
    features, labels = torch.eye(2), torch.tensor([0, 1])
    triton = Machine(device="cpu", backend="triton")
    with joined(triton), pytest.raises(ValueError, match=r"expected backend .* got 'triton'"):
        pc.class_prototypes(features, labels, 2)
    assert pc.class_prototypes(features, labels, 2).mean.tolist() == features.tolist()


def test_a_signal_is_noted_and_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with asked_to_stop() as request:
        assert not request.yes
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.yes
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("bf16", torch.bfloat16)]
)
def test_the_network_computes_in_the_precision_that_is_set(precision: str, dtype: torch.dtype):
    settings = Machine(device="cpu", precision=precision)
    with Precision(settings, torch.device("cpu")).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
