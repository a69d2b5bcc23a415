"""`torch.export`: exported programs keep values, checks and gradients, at other sizes too."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

import protocontrast as pc
from protocontrast.checks import TRACEABLE
from tests.differentiable import CALLS, ONE_OF_EACH, leaves_of, outcome, scene

pytestmark = pytest.mark.usefixtures("eager")
by_the_compiler = pytest.mark.skipif(not TRACEABLE, reason="expected torch 2.11 or later")
both_ways = pytest.mark.parametrize("strict", [False, pytest.param(True, marks=by_the_compiler)])


class Called(nn.Module):
    """One call as a module without state."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
        return CALLS[self.name](features, labels, prototypes)


def assert_same(program: Any, plain: Any, inputs: tuple[Tensor, ...], wanted: list[int]) -> None:
    found, expected = (outcome(call, inputs, wanted) for call in (program, plain))
    torch.testing.assert_close(found, expected)


@both_ways
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_an_exported_program_back_propagates(name: str, strict: bool) -> None:
    inputs = scene()
    program = export(Called(name), tuple(inputs), strict=strict).module()
    assert_same(program, CALLS[name], inputs, leaves_of(name))


@both_ways
@pytest.mark.parametrize("name", ["mean", "unit class means"])
def test_other_sizes(name: str, strict: bool) -> None:
    images, pixels = Dim("images", min=2, max=64), Dim("pixels", min=2, max=4096)
    sizes = {
        "features": {0: images, 2: pixels},
        "labels": {0: images, 1: pixels},
        "prototypes": None,
    }
    inputs = tuple(scene(torch.float32))
    program = export(Called(name), inputs, dynamic_shapes=sizes, strict=strict).module()
    random = torch.Generator().manual_seed(0)
    others = (
        torch.randn(3, 4, 10, generator=random),
        torch.randint(0, 3, (3, 10), generator=random),
        inputs[2],
    )
    assert_same(program, CALLS[name], others, [0])


class Grid(nn.Module):
    """Both directions with labels at image resolution, whose grid follows the features."""

    def __init__(self, balance: Any) -> None:
        super().__init__()
        self.loss = pc.BidirectionalContrastLoss(3, pairwise=False, balance=balance)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(features, labels, features.flip(0), labels.flip(0)).loss


@pytest.mark.parametrize("balance", ["pixel", "class"])
@both_ways
def test_other_grids(strict: bool, balance: str) -> None:
    height, rows = Dim("height", min=2, max=64), Dim("rows", min=2, max=640)
    labels = (torch.arange(2 * 9 * 6).reshape(2, 9, 6) // 5) % 3
    features = scene(torch.float32).features.reshape(2, 4, 3, 2)
    program = export(
        Grid(balance), (features, labels), dynamic_shapes=({2: height}, {1: rows}), strict=strict
    ).module()
    taller = torch.linspace(-2, 2, 2 * 4 * 5 * 2).sin().reshape(2, 4, 5, 2)
    for sizes in ((features, labels), (taller, labels.repeat(1, 2, 1))):
        assert_same(program, Grid(balance), sizes, [0])


@both_ways
def test_an_exported_program_refuses_wrong_labels(strict: bool) -> None:
    features, labels, prototypes = scene(torch.float32)
    program = export(Called("mean"), (features, labels, prototypes), strict=strict).module()
    with pytest.raises(ValueError, match=r"expected labels in 0\.\.2 or ignore_index = 255"):
        program(features, torch.where(labels == 1, 7, labels), prototypes)


@both_ways
def test_an_exported_program_refuses_a_gradient_penalty(strict: bool) -> None:
    features, labels, prototypes = scene(torch.float32)
    program = export(Called("mean"), (features, labels, prototypes), strict=strict).module()
    leaf = features.clone().requires_grad_()
    loss = program(leaf, labels, prototypes)
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="got a derivative of a gradient"):
        (loss + gradient.square().sum()).backward()


class Inference(nn.Module):
    """What a deployed labeller needs: nearest prototypes from stored ones."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = pc.PrototypeBank(3, 4)
        self.bank.update(*scene(torch.float32)[:2])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        found = pc.transfer_labels(
            features, self.bank.prototypes, present=self.bank.present, threshold=0.5
        )
        return found.labels, found.confidence


@both_ways
def test_a_stored_bank(strict: bool) -> None:
    module, features = Inference(), scene(torch.float32, seed=3).features
    program = export(module, (features,), strict=strict).module()
    labels, confidence = program(features)
    assert torch.equal(labels, module(features)[0])
    assert torch.equal(confidence, module(features)[1])
