"""What a step of `BiCL` costs beside its pixels: Python calls, and looks at label values."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch

import protocontrast as pc
from protocontrast import BiCL, kernels
from protocontrast.functional.labels import labels_are_known
from protocontrast.native.labels import are_right
from protocontrast.ops import labels as label_checks
from tests.launching import needs_triton

# What a call does to pixels is the business of a backend, and grows with their number.
BACKENDS = ("/eager/", "/native/", "/kernels/", "/naive/")
NOWHERE = ("nowhere",)
MOST, MOST_IN_ALL = 150, 170
ON_KERNELS = {"contrast": 146, "transfer": 65, "step": 208}
"""With their gradients, where they have one."""


def step(static: bool, **settings: Any) -> tuple[BiCL, list[torch.Tensor]]:
    """A module that has seen the batch, and the batch."""
    torch.manual_seed(0)
    source, target = (torch.randn(2, 64, 24, 48, requires_grad=True) for _ in range(2))
    labels = torch.randint(0, 19, (2, 24, 48))
    batch = [source, labels, target, labels.flip(0)] if static else [source, labels, target]
    bicl = BiCL(19, 64, threshold=0.1, **settings)
    bicl(*batch)
    return bicl, batch


def calls_of(call: Callable[[], object], backends: tuple[str, ...] = BACKENDS) -> list[str]:
    """Functions of the library that a call enters, outside of these rooms, in order."""
    entered: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        outside = "/protocontrast/" not in path or any(room in path for room in backends)
        if event == "call" and not outside:
            entered.append(f"{path.rpartition('/protocontrast/')[2]}:{frame.f_code.co_name}")

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(before)
    return entered


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_a_step_makes_few_calls(bank_update: str, static: bool) -> None:
    bicl, batch = step(static, bank_update=bank_update)
    entered = calls_of(lambda: bicl(*batch))
    assert "bicl/module.py:forward" in entered
    assert len(entered) <= MOST, "\n".join(entered)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("bank_update", ["before", "after"])
def test_a_step_in_c_makes_few_calls_in_all(bank_update: str, static: bool) -> None:
    """The backend's own among them, which then do not grow with the pixels."""
    if not pc.backends()["native"].startswith("usable"):
        pytest.skip("expected the C library")
    bicl, batch = step(static, bank_update=bank_update)
    entered = calls_of(lambda: bicl(*batch), backends=NOWHERE)
    assert "native/library.py:run" in entered
    assert len(entered) <= MOST_IN_ALL, "\n".join(entered)


@needs_triton
@pytest.mark.parametrize("name", ON_KERNELS)
def test_what_starts_kernels_makes_few_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU waits for each; microseconds are told by `python -m tests.ahead_of_time.host`."""
    from protocontrast.kernels.launch import recorded

    # Recorded launches do not run, so tensors on the CPU are as good as others.
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    features, other = (torch.ones(2, 76, 9, 9, requires_grad=True) for _ in range(2))
    labels, rows = torch.zeros(2, 9, 9, dtype=torch.int64), torch.ones(19, 76)
    bicl = BiCL(19, 76, backend="triton")
    bicl.silence.over = True
    calls = {
        "contrast": lambda: pc.pixel_prototype_contrast(features, labels, rows, backend="triton"),
        "transfer": lambda: pc.transfer_labels(features, rows, backend="triton"),
        "step": lambda: bicl(features, labels, other).loss,
    }

    def there_and_back() -> None:
        result = calls[name]()
        if isinstance(result, torch.Tensor):
            torch.autograd.grad(result, features)

    with labels_are_known(), recorded("sm90") as launches:
        there_and_back()
        entered = calls_of(there_and_back, backends=NOWHERE)
    assert launches
    assert len(entered) <= ON_KERNELS[name], "\n".join(entered)


@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
@pytest.mark.parametrize("static", [False, True])
def test_every_label_map_is_looked_at_once(
    static: bool, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bicl, batch = step(static, **settings)
    looks = []

    def look(labels: torch.Tensor, *rest: int) -> bool:
        looks.append(labels.shape)
        return are_right(labels, *rest)

    monkeypatch.setattr(label_checks, "are_right", look)
    bicl(*batch)
    assert looks == [batch[1].shape] * (1 + static)


def test_labels_are_looked_at_again_after_a_step() -> None:
    bicl, batch = step(False)
    bicl(*batch)
    batch[1][0, 0, 0] = 19
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^BiCL: expected source_labels in 0\.\.18 or"):
            bicl(*batch)
