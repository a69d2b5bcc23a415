"""Two ranks equal one process on the union of their images, and do a whole run together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.engine.processes import processes
from reference.engine.settings import Machine

from tests.reference.tiny_runs import ALONE, digest, held
from tests.reference.two_ranks import gradients, part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ranks")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, "-m", "tests.reference.two_ranks", str(place)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in (0, 1)]


def test_prototypes_and_bias_are_the_same_on_both_ranks(ranks: list[dict[str, Any]]):
    first, second = (rank["bicl"] for rank in ranks)
    assert first["source_bank.present"].sum() == 4
    assert first["domain_bias.bias"].abs().sum() > 0
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_two_ranks_equal_one_process_on_the_union(ranks: list[dict[str, Any]]):
    expected, bicl, terms = gradients([part(slice(0, 4))], ALONE)
    assert len(terms) == 6
    assert ranks[0]["terms"] == pytest.approx(terms, rel=1e-4)
    for name, value in bicl.state_dict().items():
        torch.testing.assert_close(ranks[0]["bicl"][name], value, rtol=1e-4, atol=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(ranks[0]["gradients"][name], gradient, rtol=2e-3, atol=2e-6)
        assert torch.equal(ranks[0]["gradients"][name], ranks[1]["gradients"][name])


def test_one_rank_alone_has_another_gradient():
    union, _, _ = gradients([part(slice(0, 4))], ALONE)
    half, _, _ = gradients([part(slice(0, 2))], ALONE)
    name = "head.weight"
    assert not torch.allclose(union[name], half[name], rtol=2e-3, atol=2e-6)


def test_two_ranks_do_a_whole_run(folder: Path):
    assert [(folder / f"complete{rank}").read_text() for rank in (0, 1)] == ["True", "True"]
    assert held(folder / "run")["iteration"] == 9
    assert len(list((folder / "run" / "labels" / "round-1").glob("*.png"))) == 4
    assert held(folder / "run")["bicl"]["source_bank.present"].any()


def test_two_ranks_that_stopped_before_labels_are_made_go_on_with_the_same_bits(folder: Path):
    starts = json.loads((folder / "broken" / "origin.json").read_text())["starts"]
    # Static labels are made at iteration 6, by both, with batch statistics that only one stored.
    assert [start["iteration"] for start in starts] == [0, 4]
    found, expected = held(folder / "broken"), held(folder / "run")
    assert digest(found) == digest(expected)


def test_without_torchrun_a_process_is_alone():
    with processes(Machine(device="cpu")) as group:
        assert (group.rank, group.world, group.leads, group.shared) == (0, 1, True, False)
        assert group.agree("as before") == "as before"
        assert group.total(torch.tensor([3.0])).tolist() == [3.0]
