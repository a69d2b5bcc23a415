"""Meta and fake tensors: shapes, dtypes and gradients' shapes are known without any value."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import protocontrast as pc
from tests.differentiable import CALLS, READS_PROTOTYPES, scene

NAIVE = [name for name in CALLS if name != "bidirectional"]
MAPS = scene(torch.float32).features.reshape(2, 4, 3, 2)
LABELS = scene().labels.reshape(2, 3, 2)
FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "transfer": lambda f, y, p: pc.transfer_labels(f, p),
    "transfer naive": lambda f, y, p: pc.transfer_labels(f, p, backend="naive"),
    "nearest": lambda f, y, p: pc.labels_to_grid(y, (2, 2), num_classes=3),
    "majority": lambda f, y, p: pc.labels_to_grid(y, (2, 2), mode="majority", num_classes=3),
    "counts": lambda f, y, p: pc.labels_to_grid(y, (2, 2), mode="counts", num_classes=3),
    "fuse": lambda f, y, p: pc.fuse_labels(y, y),
    "bidirectional": lambda f, y, p: pc.bidirectional_contrast(f, y, f, y, num_classes=3),
}


def described(values: Any) -> list[tuple[torch.Size, torch.dtype]]:
    tensors = [values] if isinstance(values, Tensor) else values
    return [(value.shape, value.dtype) for value in tensors]


def with_gradients(name: str, inputs: tuple[Tensor, ...], **settings: Any) -> list[Tensor]:
    features, labels, prototypes = inputs
    leaves = [features.detach().clone().requires_grad_()]
    if name in READS_PROTOTYPES:
        leaves.append(prototypes.detach().clone().requires_grad_())
    result = CALLS[name](
        leaves[0], labels, leaves[-1] if len(leaves) > 1 else prototypes, **settings
    )
    return [result, *torch.autograd.grad(result.sum(), leaves)]


@pytest.mark.parametrize("name", CALLS)
def test_meta(name: str) -> None:
    got = with_gradients(name, tuple(value.to("meta") for value in scene(torch.float32)))
    assert all(value.is_meta for value in got)
    assert described(got) == described(with_gradients(name, scene(torch.float32)))


@pytest.mark.parametrize("backend", ["auto", "naive"])
@pytest.mark.parametrize("name", NAIVE)
def test_fake(name: str, backend: str) -> None:
    expected = described(with_gradients(name, scene(torch.float32)))
    with FakeTensorMode() as mode:
        fake = tuple(mode.from_tensor(value) for value in scene(torch.float32))
        assert described(with_gradients(name, fake, backend=backend)) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_on_meta_and_fake(name: str) -> None:
    inputs = MAPS, LABELS, scene(torch.float32).prototypes
    expected = described(FUNCTIONS[name](*inputs))
    meta = FUNCTIONS[name](*[value.to("meta") for value in inputs])
    assert described(meta) == expected
    with FakeTensorMode() as mode:
        fake = FUNCTIONS[name](*[mode.from_tensor(value) for value in inputs])
        assert described(fake) == expected


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
