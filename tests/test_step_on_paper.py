"""A whole BiCL step on the kernels, on paper: how many launches, how often each map passes by.

A unit is one read or one write of one domain's feature map. A kernel that names a map among its
pointers reads or writes each of its elements once from memory: where it loads a tile a second time,
the first load was moments before.
"""

from importlib.util import find_spec
from typing import Any

import pytest
import torch

import protocontrast as pc
from protocontrast import kernels

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
SHAPE = 2, 76, 92, 92


def launches_of(
    monkeypatch: pytest.MonkeyPatch,
    static: bool,
    size: tuple[int, ...] = SHAPE[2:],
    **settings: Any,
) -> list[Any]:
    """The launches of a step and its backward at the size of the released model.

    `size` is that of the source labels.
    """
    from protocontrast.kernels.launch import recorded

    # Recorded launches do not run, so tensors on the CPU are as good as others.
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    bicl = pc.BiCL(19, 76, backend="triton", **settings)
    source, target = (torch.ones(SHAPE, requires_grad=True) for _ in range(2))
    given, labels = (torch.zeros(2, *shape, dtype=torch.int64) for shape in (SHAPE[2:], size))
    with recorded("sm90") as launches:
        out = bicl(source, labels, target, given if static else None)
        torch.autograd.grad(out.loss, (source, target))
    return launches


def readers(launches: list[Any]) -> list[str]:
    """Kernels in the order of their launches, but for those that read prototypes alone."""
    kernels = [launch.kernel.__name__ for launch in launches]
    return [name for name in kernels if name != "prepare_kernel"]


def units(launches: list[Any]) -> int:
    """Reads and writes of whole maps."""
    from protocontrast.kernels.launch import leaves

    elements = torch.Size(SHAPE).numel()
    pointers = [value for launch in launches for _, value in leaves(launch.arguments)]
    return sum(isinstance(value, torch.Tensor) and value.numel() == elements for value in pointers)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("settings", [{}, {"calibrate": False}, {"normalize": "features"}])
def test_launches_and_units_of_a_step(
    static: bool, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = launches_of(monkeypatch, static, **settings)
    # One backward sweep per map.
    backwards = ["contrast_backward_kernel"] * 2
    forwards = ["class_sums_kernel", "target_pass_kernel", "contrast_kernel"]
    assert readers(launches) == [*forwards, *backwards]
    assert len(launches) == 10
    assert units(launches) == 7


@pytest.mark.parametrize("size", [SHAPE[2:], (184, 368)])
@pytest.mark.parametrize("settings", [{}, {"calibrate": False}, {"normalize": "features"}])
def test_prototypes_of_the_previous_step_save_a_read(
    settings: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = launches_of(monkeypatch, True, size, bank_update="after", **settings)
    passes = ["target_pass_kernel"] * 2
    assert readers(launches) == [*passes, *["contrast_backward_kernel"] * 2]
    assert len(launches) <= 10
    assert units(launches) == 6
