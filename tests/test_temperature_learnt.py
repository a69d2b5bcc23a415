"""A temperature that is learnt: its gradient, and everything else as for a float."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import protocontrast as pc
from tests import pair_cases
from tests.differentiable import scene
from tests.strategies import ContrastCase, contrast_cases
from tests.tempered import CALLS


def learnt(number: float = 0.3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(number, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("name", CALLS)
def test_gradients(name: str) -> None:
    features, labels, prototypes = scene()
    leaves = features.requires_grad_(), prototypes.requires_grad_(), learnt()
    assert torch.autograd.gradcheck(lambda f, p, t: CALLS[name](f, labels, p, t), leaves)


@pytest.mark.parametrize("name", CALLS)
def test_the_rest_is_as_for_a_float(name: str) -> None:
    features, labels, prototypes = scene()
    leaves = features.requires_grad_(), prototypes.requires_grad_()
    found = []
    for temperature in (0.3, learnt(), learnt(dtype=torch.float32)):
        value = CALLS[name](leaves[0], labels, leaves[1], temperature)
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        found.append([value.detach(), *(one for one in gradients if one is not None)])
        assert value.dtype == torch.float64
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0], rtol=1e-5, atol=1e-6)


def assert_as_naive(call: dict[str, Any], function: Any, leaves: tuple[str, ...]) -> None:
    """Value and every gradient: with a float, learnt, and learnt by the specification."""
    number, found = call["temperature"], []
    for backend in ("eager", "naive", "float"):
        temperature = learnt(number)
        given = call | {"temperature": temperature, "backend": backend}
        if backend == "float":
            given |= {"temperature": number, "backend": "eager"}
        value = function(**given)
        wanted = [call[name] for name in leaves]
        if backend != "float":
            wanted.append(temperature)
        gradients = torch.autograd.grad(value.sum(), wanted, allow_unused=True)
        filled = [torch.zeros_like(leaf) if g is None else g
                  for g, leaf in zip(gradients, wanted, strict=True)]  # fmt: skip
        found.append([value.detach(), *filled])
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-9 / number**2)
    torch.testing.assert_close(found[0][:-1], found[2], rtol=1e-7, atol=1e-9 / number**2)
    for values in found:
        assert all(torch.isfinite(value).all() for value in values)


@given(data=st.data())
def test_any_contrast(data: st.DataObject) -> None:
    """Soft targets, weights, absent classes and reductions; ignored pixels that hold NaN."""
    case = data.draw(contrast_cases(dtype=torch.float64, prototype_dtype=torch.float64))
    case = case._replace(layout="contiguous" if case.layout == "expanded" else case.layout)
    call = {**case.tensors(), **case.settings}
    for name in ("features", "prototypes"):
        call[name].requires_grad_()
    assert_as_naive(call, pc.pixel_prototype_contrast, ("features", "prototypes"))


@given(data=st.data())
def test_any_pairs(data: st.DataObject) -> None:
    case = data.draw(pair_cases.cases())
    case = case._replace(dtype=torch.float64, key_dtype=torch.float64, layout="contiguous")
    call = case.call()
    for name in case.wanted:
        call[name].requires_grad_()
    assert_as_naive(call, pc.pair_contrast, case.wanted)


def test_a_bank_may_change_before_backward() -> None:
    case = ContrastCase(0, (2, 4, 3, 3), 3, dtype=torch.float64, presence="given")
    for function in (pc.pixel_prototype_contrast, pc.distribution_contrast):
        call = {**case.tensors(), "temperature": learnt()}
        if function is pc.distribution_contrast:
            call["variance"] = call["prototypes"].square()
        leaf = call["features"].requires_grad_()
        loss = function(**call)
        expected = torch.autograd.grad(loss, (leaf, call["temperature"]), retain_graph=True)
        call["prototypes"].fill_(3.0)
        call["present"].fill_(True)
        assert all(
            torch.equal(*pair)
            for pair in zip(
                torch.autograd.grad(loss, (leaf, call["temperature"])), expected, strict=True
            )
        )


@pytest.mark.parametrize(
    "name",
    ["contrast", *(pytest.param(n, marks=pytest.mark.slow) for n in ("pairs", "distribution"))],
)
def test_compiled(name: str) -> None:
    torch.compiler.reset()
    features, labels, prototypes = scene()
    traced = torch.compile(CALLS[name], fullgraph=True, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    for number in (0.3, 0.2, 1.0):
        found = []
        for call in (CALLS[name], traced):
            temperature = learnt(number)
            loss = call(features, labels, prototypes, temperature)
            found.append((loss.detach(), *torch.autograd.grad(loss, temperature)))
        torch.testing.assert_close(found[1], found[0])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_held_until_backward_is_what_the_guide_says(dtype: torch.dtype) -> None:
    images, channels, classes, side = 2, 16, 7, 32
    features = torch.randn(images, channels, side, side, dtype=dtype).requires_grad_()
    labels, prototypes = (
        torch.randint(classes, (images, side, side)),
        torch.randn(classes, channels),
    )
    held: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        held[value.untyped_storage().data_ptr()] = value
        return value

    temperature = learnt(dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = pc.pixel_prototype_contrast(features, labels, prototypes, temperature=temperature)
    large = [one for one in held.values() if one.numel() >= classes * labels.numel()]
    copies = [one for one in large if one.numel() == features.numel()]
    assert loss.requires_grad
    assert [one.dtype for one in copies] == [dtype]
    assert features.untyped_storage().data_ptr() not in held
    size = features.element_size() * channels + 14 * classes
    assert sum(one.untyped_storage().nbytes() for one in large) == labels.numel() * size
