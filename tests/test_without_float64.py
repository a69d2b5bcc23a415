"""On a device without float64, such as Apple's, nothing makes one: counts are float32 there."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import protocontrast as pc
from protocontrast.bank import buffers
from protocontrast.functional import precision
from tests.bad_arguments import calls
from tests.stateful import STATES, warm
from tests.test_default_dtype import FINE, LABELS, MAPS, MODULES, SURE


class NoFloat64(TorchDispatchMode):
    """Raises where an operator makes a tensor of float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made = found if isinstance(found, (tuple, list)) else [found]
        for one in made:
            if isinstance(one, Tensor) and one.dtype == torch.float64:
                raise TypeError(f"{func} made a float64 tensor")
        return found


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The host as a device without float64, until undone."""
    for module in (precision, buffers):
        monkeypatch.setattr(module, "has_float64", lambda device: False)
    return monkeypatch


def assert_close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, check_dtype=False)


def test_a_device_by_its_type() -> None:
    assert not precision.has_float64(torch.device("mps"))
    assert all(precision.has_float64(torch.device(name)) for name in ("cpu", "cuda", "meta"))


def test_the_check_can_fail() -> None:
    with NoFloat64(), pytest.raises(TypeError):
        torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize(
    "name", ["labels_to_grid", "assign_subclasses", "frequency_weights", "sample_pixels"]
)
def test_functions(name: str, narrow: pytest.MonkeyPatch) -> None:
    call = calls()[name]
    torch.manual_seed(0)
    with NoFloat64():
        found = call.function(**call.arguments)
    narrow.undo()
    torch.manual_seed(0)
    assert_close(found, call.function(**call.arguments))


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name[:4] != "BiCL" and "Thresholds" not in name]
)
def test_modules(name: str, narrow: pytest.MonkeyPatch) -> None:
    with NoFloat64():
        module, results = MODULES[name]()
    assert {value.dtype for value in module.buffers() if value.is_floating_point()} == {
        torch.float32
    }
    narrow.undo()
    twin, expected = MODULES[name]()
    assert_close(module.state_dict(), twin.state_dict())
    assert_close(results, expected)


@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
def test_a_step(settings: dict[str, Any], narrow: pytest.MonkeyPatch) -> None:
    def step() -> tuple[pc.BiCL, Any]:
        bicl = pc.BiCL(3, 4, threshold=0.5, **settings)
        leaf = MAPS.clone().requires_grad_()
        out = bicl(leaf, FINE, MAPS.flip(0), LABELS)
        return bicl, [*out, *torch.autograd.grad(out.loss, leaf)]

    with NoFloat64():
        bicl, found = step()
    narrow.undo()
    twin, expected = step()
    assert_close(bicl.state_dict(), twin.state_dict())
    assert_close(found, expected)


def thresholds() -> pc.ClassThresholds:
    made = pc.ClassThresholds(3)
    made.update(SURE)
    return made


def test_thresholds(narrow: pytest.MonkeyPatch) -> None:
    """Their edges are made on the host."""
    module = pc.ClassThresholds(3)
    with NoFloat64():
        module.update(SURE)
        found = [module.thresholds(), module.confidence(), *module.select(SURE)]
    narrow.undo()
    twin = thresholds()
    assert_close(found, [twin.thresholds(), twin.confidence(), *twin.select(SURE)])


def moved(module: torch.nn.Module) -> dict[str, Tensor]:
    module.to("cpu")
    return dict(module.named_buffers())


@pytest.mark.parametrize("text", STATES)
def test_there_and_back(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are float32 on such a device, also of a widened module, and float64 at home again."""
    module, home = warm(text), warm(text).state_dict()
    for module_of in (precision, buffers):
        monkeypatch.setattr(module_of, "has_float64", lambda device: False)
    for away in (moved(module), moved(module.half())):
        assert not any(value.dtype in (torch.float64, torch.float16) for value in away.values())
    monkeypatch.undo()
    back = moved(module)
    for name, value in home.items():
        assert back[name].dtype == value.dtype
        # A sum that waits in float64 is narrowed on the way; all else comes back to the bit.
        waiting = "pending_" in name and value.dtype == torch.float64
        torch.testing.assert_close(back[name], value, **({} if waiting else {"rtol": 0, "atol": 0}))


def test_a_widened_module_goes_there(narrow: pytest.MonkeyPatch) -> None:
    narrow.undo()
    module = pc.DomainBias(3, 4).double()
    for module_of in (precision, buffers):
        narrow.setattr(module_of, "has_float64", lambda device: False)
    assert moved(module)["bias"].dtype == torch.float32


def test_a_small_row_keeps_its_direction(narrow: pytest.MonkeyPatch) -> None:
    bank = pc.PrototypeBank(2, 3, normalize="prototypes")
    for length in (1e-30, 1e30):
        row = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]) * length
        expected = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]])
        torch.testing.assert_close(bank.on_scale(row), expected)
