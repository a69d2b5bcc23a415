"""Meta and fake tensors: shapes, dtypes and gradients' shapes are known without any value."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

import protocontrast as pc
from tests.bad_arguments import calls
from tests.differentiable import CALLS, leaves_of, outcome, scene
from tests.test_bad_arguments import tensors

MAPS = scene(torch.float32).features.reshape(2, 4, 3, 2)
LABELS = scene().labels.reshape(2, 3, 2)
FUNCTIONS = [name for name in calls() if name[0].islower() and "backend" not in name]
METHODS = [name for name in calls() if "." in name and name != "PrototypeBank.fit"]


def described(values: Any) -> list[tuple[torch.Size, torch.dtype]]:
    tensors = [values] if isinstance(values, Tensor) else values
    return [(value.shape, value.dtype) for value in tensors]


def with_gradients(name: str, inputs: tuple[Tensor, ...], **settings: Any) -> list[Tensor]:
    return outcome(CALLS[name], inputs, leaves_of(name), **settings)


@pytest.mark.parametrize("name", CALLS)
def test_meta(name: str) -> None:
    got = with_gradients(name, tuple(value.to("meta") for value in scene(torch.float32)))
    assert all(value.is_meta for value in got)
    assert described(got) == described(with_gradients(name, scene(torch.float32)))


@pytest.mark.parametrize("backend", ["auto", "naive"])
@pytest.mark.parametrize("name", CALLS)
def test_fake(name: str, backend: str) -> None:
    expected = described(with_gradients(name, scene(torch.float32)))
    with FakeTensorMode() as mode:
        fake = tuple(mode.from_tensor(value) for value in scene(torch.float32))
        assert described(with_gradients(name, fake, backend=backend)) == expected


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_public_calls(name: str) -> None:
    call = calls()[name]
    expected = described(tensors(call.function(**call.arguments)))
    owner = getattr(call.function, "__self__", call.function)
    if isinstance(owner, torch.nn.Module):
        owner.to("meta")
    there = tree_map_only(Tensor, lambda value: value.to("meta"), call.arguments)
    assert described(tensors(call.function(**there))) == expected
    if name in FUNCTIONS and name != "check_labels":  # which is asked for values
        with FakeTensorMode() as mode:
            fake = tree_map_only(Tensor, mode.from_tensor, call.arguments)
            assert described(tensors(call.function(**fake))) == expected


def test_meta_labels_have_no_values_to_check() -> None:
    pc.check_labels(torch.full((4,), 99, device="meta"), 3)


@pytest.mark.parametrize(
    "settings", [{}, {"balance": "class"}, {"prototypes": "batch", "pairwise": True}]
)
def test_bicl_on_meta_and_fake(settings: dict[str, Any]) -> None:
    real = pc.BiCL(3, 4, **settings)
    expected = described(real(MAPS, LABELS, MAPS, LABELS))
    meta = pc.BiCL(3, 4, validate=True, **settings).to("meta")
    features, labels = MAPS.to("meta").requires_grad_(), LABELS.to("meta")
    out = meta(features, labels, features, labels)
    out.loss.backward()
    assert features.grad is not None
    assert described(out) == expected
    with FakeTensorMode():
        fake = pc.BiCL(3, 4, **settings)
        features = torch.randn(MAPS.shape, requires_grad=True)
        out = fake(features, torch.zeros(2, 3, 2).long(), features, torch.zeros(2, 3, 2).long())
        out.loss.backward()
        assert features.grad is not None
        assert described(out) == expected


def test_a_bank_is_built_on_meta_and_loaded() -> None:
    bank = pc.PrototypeBank(3, 4)
    bank.update(MAPS, LABELS)
    with torch.device("meta"):
        empty = pc.PrototypeBank(3, 4)
    assert empty.prototypes.is_meta
    empty.load_state_dict(bank.state_dict(), assign=True)
    assert torch.equal(empty.prototypes, bank.prototypes)
    stats = empty.update(MAPS.flip(0), LABELS)
    assert torch.equal(stats.mean, bank.update(MAPS.flip(0), LABELS).mean)
    assert torch.equal(empty.prototypes, bank.prototypes)
