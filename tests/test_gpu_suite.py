"""The suite for a GPU where there is none: collected, skipped with one line, its parts sound."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import protocontrast as pc
from tests.gpu import small_calls
from tests.gpu.on_device import NO_DEVICE, carry, moved, on_device
from tests.gpu.scenes import CALLS, gradients, make
from tests.strategies import LAYOUTS, laid_out, normal

ROOT = Path(__file__).resolve().parents[1]
COMMAND = ["-m", "pytest", "-c", "tests/gpu/pytest.ini", "--rootdir=.", "tests/gpu"]


def run(*arguments: str) -> list[str]:
    command = [sys.executable, *COMMAND, "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What that suite says: names and skips, or with a device, where it would run, the names."""
    return run("--collect-only" if torch.cuda.is_available() else "-v")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_one_line_says_so(lines: list[str]) -> None:
    *_, line, totals = lines
    assert line == NO_DEVICE
    assert " skipped" in totals
    assert not any(word in totals for word in ("passed", "failed", "error"))


def test_every_property_is_collected(lines: list[str]) -> None:
    names = {line.partition("::")[2].partition("[")[0].partition(" ")[0] for line in lines}
    for stem in ("operator_properties", "transfer"):
        assert f"test_any_call_of_{stem}" in names
    assert "test_every_layout_and_dtype_of_tiles_of_kernels" in names
    assert "test_what_does_not_count_is_never_read_of_operator_properties" in names
    assert "test_small_calls" in names


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 7), (5, 3), (0, 3, 4)])
def test_a_carried_tensor_keeps_its_layout(shape: tuple[int, ...], layout: str) -> None:
    tensor = laid_out(normal(0, shape, torch.float32), layout)
    there = moved(tensor, "cpu")
    assert torch.equal(there, tensor)
    assert there.stride() == tensor.stride()
    if tensor.numel():
        assert there.storage_offset() == tensor.storage_offset()
        assert there.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
        assert there.data_ptr() != tensor.data_ptr()


def test_only_the_kernels_are_carried() -> None:
    leaf, seen = torch.ones(3, requires_grad=True), []

    def double(x: torch.Tensor, *, backend: str) -> torch.Tensor:
        seen.append(x is leaf)
        return 2 * x

    for backend in ("naive", "triton"):
        result = on_device(double, "cpu")(leaf, backend=backend)
        assert torch.autograd.grad(result.sum(), leaf)[0].tolist() == [2, 2, 2]
    assert seen == [True, False]


def test_a_module_that_uses_nothing_of_the_library_is_an_error() -> None:
    module = ModuleType("anything")
    with pytest.raises(RuntimeError, match="carry: expected functions of the library, got none"):
        carry(module)
    module.transfer_labels = pc.transfer_labels
    carry(module)
    assert module.transfer_labels is not pc.transfer_labels


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_of_that_suite_work_here(name: str) -> None:
    given = make((2, 7, 4, 5), 3, torch.float32, layout="channels_last", device="cpu")
    found = gradients(CALLS[name], given)
    assert all(torch.isfinite(value).all() for value in found)
    assert (len(found) > 2) == (name != "transfer")


def test_the_calls_for_the_sanitizer_work_here() -> None:
    small_calls.main("cpu")
