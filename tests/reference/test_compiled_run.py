"""`--compile`: the same numbers as without, in a checkpoint of the same names."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reference.settings import Optimiser
from tests.reference.tiny_runs import changed, held, rows, run

# Static labels in the second round; the network is read with and without gradient. That of the toy
# compiles in a fifth of the time that DeepLab takes.
TOY = changed(
    network={"kind": "toy"},
    # AdamW turns a rounding of a gradient near 0 into a whole step.
    adaptation={"iterations": 2, "optimiser": Optimiser(learning_rate=1e-2)},
    reporting={"evaluate": True, "evaluate_every": 2},
)
COMPILED = changed(TOY, machine={"compile": True})
NO_COMPILER = "torch.compile writes C++, and none of c++, g++ and clang++ is installed"


def numbers(folder: Path) -> list[list[float]]:
    """Every number of the metrics that does not tell the time."""
    clock = ("phase", "iterations_per_second", "data_wait_share", "cpu_seconds", "peak_mib")
    return [[float(v) for k, v in row.items() if v and k not in clock] for row in rows(folder)]


def assert_same_run(folder: Path, plain: Path) -> None:
    ours, theirs = (
        [part["student"], part["teacher"], part["method"]["state"]]
        for part in (held(folder), held(plain))
    )
    for mine, yours in zip(ours, theirs, strict=True):
        assert list(mine) == list(yours)
        torch.testing.assert_close({**mine}, {**yours}, rtol=1e-3, atol=1e-4, check_stride=False)
    for ours, theirs in zip(numbers(folder), numbers(plain), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_traced_run_equals_a_plain_one(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What inductor would be given is traced, also differentiated in full, and run by torch."""
    assert run(TOY, tmp_path / "plain")
    graphs: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    real = torch.compile
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", lambda call: real(call, backend=counted))
    assert run(COMPILED, tmp_path / "run")
    # With gradient and without, each in one piece.
    assert len(graphs) == 2 and min(graphs) > 50
    assert_same_run(tmp_path / "run", tmp_path / "plain")


@pytest.mark.slow
def test_a_compiled_run_equals_a_plain_one(tmp_path: Path):
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip(NO_COMPILER)
    assert run(TOY, tmp_path / "plain")
    torch.compiler.reset()
    assert run(COMPILED, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "plain")


def test_the_check_can_fail(tmp_path: Path):
    assert run(TOY, tmp_path / "plain")
    assert run(replace(TOY, seed=1), tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", tmp_path / "plain")
