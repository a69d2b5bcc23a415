"""A whole BiCL step on the kernels, on paper: how many launches, how often each map passes by.

A unit is one read or one write of one domain's feature map. A kernel that names a map among its
pointers reads or writes each of its elements once from memory: where it loads a tile a second time,
the first load was moments before.
"""

from collections import Counter
from typing import Any

import pytest
import torch

import protocontrast as pc
from protocontrast import kernels
from protocontrast.functional.labels import labels_are_known
from protocontrast.ops import backend
from tests.launching import launches_of_torch, needs_triton

pytestmark = needs_triton
SHAPE = 2, 76, 92, 92
OF_CLASSES = (
    *("prepare_kernel", "reweigh_kernel"),
    *("bank_step_kernel", "equals_kernel", "step_end_kernel", "step_back_kernel"),
)


def started(
    monkeypatch: pytest.MonkeyPatch,
    static: bool,
    size: tuple[int, ...] = SHAPE[2:],
    **settings: Any,
) -> tuple[list[Any], Counter[str]]:
    """The launches of a step and its backward at the size of the released model; then torch's own.

    `size` is that of the source labels.
    """
    from protocontrast.kernels.launch import recorded

    # Recorded launches do not run, so tensors on the CPU are as good as others.
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    # The count is a mode, which operators go around torch's dispatcher without.
    monkeypatch.setattr(backend, "active_modes", lambda: 0)
    bicl = pc.BiCL(19, 76, backend="triton", **settings)
    # Only until a target pixel has a label is its share copied to the host.
    bicl.silence.over = True
    source, target = (torch.ones(SHAPE, requires_grad=True) for _ in range(2))
    given, labels = (torch.zeros(2, *shape, dtype=torch.int64) for shape in (SHAPE[2:], size))
    with labels_are_known(), recorded("sm90") as launches:
        of_torch = launches_of_torch(
            lambda: torch.autograd.grad(
                bicl(source, labels, target, given if static else None).loss, (source, target)
            )
        )
    return launches, of_torch


def readers(launches: list[Any]) -> list[str]:
    """Kernels in the order of their launches, but for those that read prototypes alone."""
    kernels = [launch.kernel.__name__ for launch in launches]
    return [name for name in kernels if name not in OF_CLASSES]


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
    launches, of_torch = started(monkeypatch, static, **settings)
    # One backward sweep per map.
    backwards = ["contrast_backward_kernel"] * 2
    forwards = ["class_sums_kernel", "target_pass_kernel", "contrast_kernel"]
    assert readers(launches) == [*forwards, *backwards]
    assert len(launches) == 10
    # The gradient of the loss itself, which a step that adds its losses up does not make.
    assert of_torch == {"ones_like.default": 1}
    assert units(launches) == 7


@pytest.mark.parametrize("size", [SHAPE[2:], (184, 368)])
@pytest.mark.parametrize("settings", [{}, {"calibrate": False}, {"normalize": "features"}])
def test_prototypes_of_the_previous_step_save_a_read(
    settings: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches, _ = started(monkeypatch, True, size, bank_update="after", **settings)
    passes = ["target_pass_kernel"] * 2
    assert readers(launches) == [*passes, *["contrast_backward_kernel"] * 2]
    assert len(launches) <= 9
    assert units(launches) == 6


def test_the_count_sees_what_starts() -> None:
    whole = torch.ones(4, 3)

    def call() -> None:
        part = whole[1:].flatten().view(3, 3).t()
        part.new_empty(5)
        torch.where(part > 0, part, 1).sum()

    # A number becomes a tensor before it is chosen.
    expected = ("gt.Scalar", "scalar_tensor.default", "where.self", "sum.default")
    assert launches_of_torch(call) == dict.fromkeys(expected, 1)
